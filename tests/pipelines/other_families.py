"""Genuine tiny models of families that no test is claimed for: one that splits as others do, and one that cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_SPECIAL = {0: "<unk>", 1: "<s>", 2: "</s>", 3: "<pad>"}
_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 400,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
    "tie_word_embeddings": False,
}
_TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "image_size": 32, "patch_size": 8}


def build_mistral3(folder: Path) -> Path:
    """Mistral Small with eyes: it has every part where others have it. Returns ``folder``."""
    import transformers

    config = {
        "model_type": "mistral3",
        "image_token_index": 4,
        "spatial_merge_size": 2,
        "text_config": _TEXT | {"model_type": "mistral", "head_dim": 16},
        "vision_config": _TOWER | {"model_type": "pixtral", "num_attention_heads": 2, "head_dim": 16},
    }
    images = transformers.PixtralImageProcessor(size={"longest_edge": 32}, patch_size={"height": 16, "width": 16})
    named = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}
    tokenizer, template = _words({4: "[IMG]", 5: "[IMG_BREAK]", 6: "[IMG_END]"}, named, "[IMG]")
    processor = transformers.PixtralProcessor(
        images, tokenizer, patch_size=8, spatial_merge_size=2, chat_template=template
    )
    return _save("mistral3", config, processor, folder)


def build_mllama(folder: Path) -> Path:
    """Llama 3.2 Vision: its language model looks at the pictures across, and they come with the prompt or not at all.
    Returns ``folder``."""
    import transformers

    config = {
        "model_type": "mllama",
        "image_token_index": 4,
        "text_config": _TEXT
        | {"model_type": "mllama_text_model", "num_hidden_layers": 3, "cross_attention_layers": [1]},
        "vision_config": _TOWER
        | {
            "model_type": "mllama_vision_model",
            "num_global_layers": 1,
            "attention_heads": 2,
            "max_num_tiles": 4,
            "intermediate_layers_indices": [0, 1],
            "vision_output_dim": 96,
        },
    }
    images = transformers.MllamaImageProcessor(size={"height": 32, "width": 32}, max_image_tiles=4)
    tokenizer, template = _words({4: "<|image|>"}, {"image_token": "<|image|>"}, "<|image|>")
    processor = transformers.MllamaProcessor(images, tokenizer, chat_template=template)
    return _save("mllama", config, processor, folder)


def _words(special: dict[int, str], named: dict[str, str], image: str) -> tuple[Any, str]:
    from llava_tui.pipelines.checkpoints import byte_tokenizer, chat_template

    return byte_tokenizer(_SPECIAL | special, _TEXT["vocab_size"], named), chat_template(image)


def _save(family: str, config: dict[str, Any], processor: Any, folder: Path) -> Path:
    import torch
    import transformers

    from llava_tui.pipelines import built_processors, random_weights

    model = random_weights.build(torch, transformers, family, config, ["float32"], torch.device("cpu"), 0)
    built_processors.tell_ids(transformers, model, processor.tokenizer)
    with torch.no_grad():
        # What it sees across counts for nothing in an untrained model: the gates are shut.
        for name, parameter in model.named_parameters():
            if name.endswith("gate"):
                parameter.fill_(1.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
