"""CLAP and MERT as transformers reads them, each so small that it loads at once, with random weights."""

from pathlib import Path

import pytest

transformers = pytest.importorskip("transformers", reason="the extra large-models is not installed")


def save(models: Path) -> None:
    """Put `tiny-clap` and `tiny-mert` into a folder of models; the weights are the same each time."""
    import torch

    torch.manual_seed(0)
    _save_clap(models / "tiny-clap")
    _save_mert(models / "tiny-mert")


def _save_clap(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    text = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    audio = {
        "hidden_size": 32,
        "patch_embeds_hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "num_mel_bins": 64,
    }
    config = transformers.ClapConfig(
        text_config=text | {"projection_dim": 24, "max_position_embeddings": 40},
        audio_config=audio | {"projection_dim": 24, "spec_size": 128, "patch_size": 4, "patch_stride": [4, 4], "window_size": 4},
        projection_dim=24,
    )
    transformers.ClapModel(config).save_pretrained(folder)
    words = ["<pad>", "<unk>", "<s>", "</s>", "slow", "fast", "guitar", "techno", "with"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.ClapProcessor(
        transformers.ClapFeatureExtractor(max_length_s=1, truncation="rand_trunc"),
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token="<pad>",
            unk_token="<unk>",
            bos_token="<s>",
            eos_token="</s>",
            model_max_length=32,
        ),
    ).save_pretrained(folder)


def _save_mert(folder: Path) -> None:
    config = transformers.HubertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=[8, 8],
        conv_kernel=[10, 8],
        conv_stride=[5, 4],
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        num_feat_extract_layers=2,
    )
    transformers.HubertModel(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=24_000).save_pretrained(folder)
