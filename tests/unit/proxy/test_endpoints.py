from gateway.proxy.endpoints import ENDPOINTS


def test_routes_are_found_by_their_path() -> None:
    assert all(path == endpoint.path for path, endpoint in ENDPOINTS.items())


def test_only_routes_with_stream_options_report_usage() -> None:
    assert {path for path, endpoint in ENDPOINTS.items() if endpoint.can_report_usage} == {
        "/v1/chat/completions",
        "/v1/completions",
    }
