from gateway.telemetry.requests import RequestRecord


def test_a_record_that_nobody_filled_is_an_error_without_numbers() -> None:
    record = RequestRecord("id1", "/v1/x", 0.0)
    assert (record.outcome, record.status, record.is_estimated) == ("error", 0, False)
    assert (record.first_byte_s, record.tokens_in, record.tokens_out) == (None, None, None)
