from gateway.checkpoints.matrices import find_core, index_modules, is_vision_module, read_matrices
from gateway.checkpoints.safetensors import Tensor
from gateway.checkpoints.weights import Weights

P = "base_model.model.model.layers.0.self_attn"


def weigh(**shapes: tuple[int, ...]) -> Weights:
    tensors = {name: Tensor(name, "F32", shape, "f", 0, 0) for name, shape in shapes.items()}
    return Weights(("f",), tensors)


def test_tensors_are_sorted_by_what_they_are() -> None:
    matrices = read_matrices(weigh(**{
        f"{P}.q_proj.lora_A.weight": (4, 8), f"{P}.q_proj.lora_B.weight": (8, 4),
        "base_model.model.model.embed_tokens.lora_embedding_A": (4, 99),
        "base_model.model.lm_head.base_layer.weight": (9, 8), f"{P}.k_proj.lora_magnitude_vector": (8,),
        "base_model.model.classifier.weight": (2, 8),
    }))  # fmt: skip
    assert list(matrices.pairs) == ["model.layers.0.self_attn.q_proj", "model.embed_tokens"]
    assert matrices.pairs["model.layers.0.self_attn.q_proj"].rank == 4
    assert matrices.pairs["model.embed_tokens"].is_embedding
    assert matrices.pairs["model.embed_tokens"].rank is None
    assert matrices.embeddings == ("base_model.model.lm_head.base_layer.weight",)
    assert matrices.others == (f"{P}.k_proj.lora_magnitude_vector",)


def test_halves_that_disagree_have_no_rank() -> None:
    matrices = read_matrices(weigh(**{f"{P}.q_proj.lora_A.weight": (4, 8), f"{P}.q_proj.lora_B.weight": (8, 2)}))
    assert matrices.pairs["model.layers.0.self_attn.q_proj"].rank is None


def test_names_of_different_saves_meet() -> None:
    names = ["model.language_model.layers.0.mlp.up_proj", "language_model.model.layers.0.mlp.up_proj"]
    assert {find_core(name) for name in names} == {"layers.0.mlp.up_proj"}
    assert index_modules(["model.layers.0.q.bias", "model.layers.0.q.weight"]) == {
        "layers.0.q": "model.layers.0.q.weight"
    }


def test_vision_modules() -> None:
    assert is_vision_module("model.visual.blocks.0.attn.qkv")
    assert is_vision_module("vision_tower.encoder.layers.0")
    assert not is_vision_module("model.language_model.layers.0.self_attn.q_proj")
