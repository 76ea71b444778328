import logging

import pytest
import torch
from torch import nn

from actioncast.video.backbones import build_backbone
from actioncast.video.base import BackboneConfig, Seen
from actioncast.video.frames import IMAGENET_STD, Framing

VIDEO_STEPS = {"videomae": 2, "vivit": 2, "timesformer": 4, "vjepa2": 2}
"""Positions in time of four frames."""
IMAGES = ("vit", "deit", "dinov2", "dinov2_with_registers", "clip", "siglip")
KINDS = (*VIDEO_STEPS, *IMAGES)


def tiny(kind: str, **options):
    pytest.importorskip("transformers")
    return build_backbone(
        BackboneConfig(name=f"untrained:{kind}-tiny", **{"num_frames": 4, **options})
    )


def clip_of(backbone, batch: int = 2, seed: int = 0) -> torch.Tensor:
    size, frames = backbone.framing.size, backbone.config.num_frames
    return torch.randn(batch, frames, 3, size, size, generator=torch.manual_seed(seed))


def config_of(kind: str, **options):
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    small |= {"intermediate_size": 48, "image_size": 32}
    return transformers.AutoConfig.for_model(kind, **{**small, **options})


def saved(folder, config, **preprocessor):
    """A folder as the hub has them, with random weights."""
    import json

    from transformers import AutoModel

    torch.manual_seed(3)
    model = AutoModel.from_config(config).eval()
    with torch.no_grad():
        # Positions start at 0 and would say nothing.
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    if preprocessor:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_pooling_says_how_many_tokens_there_are(kind):
    steps = VIDEO_STEPS.get(kind, 4)
    places = {"clip": 1, "dinov2": 4, "dinov2_with_registers": 4}.get(kind, 4)
    for pooling, tokens in (("tokens", steps * places), ("frames", steps), ("clip", 1)):
        backbone = tiny(kind, pooling=pooling)
        assert backbone(clip_of(backbone)).shape == (2, tokens, backbone.width)


@pytest.mark.parametrize("kind", KINDS)
def test_pooled_tokens_are_means_of_all_tokens(kind):
    tokens, frames, clip = (
        tiny(kind, pooling=pooling, summary="mean") for pooling in ("tokens", "frames", "clip")
    )
    x = clip_of(tokens)
    steps = VIDEO_STEPS.get(kind, 4)
    by_step = tokens(x).unflatten(1, (steps, -1)).mean(2)
    assert torch.allclose(frames(x), by_step, atol=1e-6)
    assert torch.allclose(clip(x), by_step.mean(1, keepdim=True), atol=1e-6)


@pytest.mark.parametrize("kind", VIDEO_STEPS)
def test_a_step_is_a_moment_and_not_a_place(kind):
    """The first block is left alone with what it sees: positions and attention off, a change of one
    moment moves the tokens of that moment alone."""
    backbone = tiny(kind, pooling="frames", summary="mean")
    for name, module in backbone.named_modules():
        if name.split(".")[-1] in ("attention", "self_attn", "temporal_attention"):
            for parameter in module.parameters():
                nn.init.zeros_(parameter)
    x = clip_of(backbone)
    moved = x.clone()
    moved[:, -1, :, :16] += 1
    changed = (backbone(moved) - backbone(x)).abs().amax((0, 2)) > 1e-4
    assert changed.tolist() == [False] * (VIDEO_STEPS[kind] - 1) + [True]


@pytest.mark.parametrize("kind", IMAGES)
def test_image_models_see_each_frame_alone(kind):
    backbone = tiny(kind)
    x = clip_of(backbone)
    order = [2, 0, 3, 1]
    assert torch.allclose(backbone(x[:, order]), backbone(x)[:, order], atol=1e-6)


@pytest.mark.parametrize("kind", ["vit", "clip_vision_model", "dinov2", "videomae", "vivit"])
def test_a_folder_gives_what_the_model_itself_gives(tmp_path, kind):
    videos = {"num_frames": 4} if kind in VIDEO_STEPS else {}
    model = saved(tmp_path, config_of(kind, **videos), image_mean=[0.5] * 3, image_std=[0.2] * 3)
    backbone = build_backbone(
        BackboneConfig(name=str(tmp_path), pooling="clip" if videos else "frames", num_frames=4)
    )
    assert backbone.framing == Framing(size=32, mean=(0.5,) * 3, std=(0.2,) * 3)
    x = clip_of(backbone)
    with torch.no_grad():
        if kind == "videomae":
            wanted = model(x).last_hidden_state.mean(1, keepdim=True)
        elif kind == "vivit":
            wanted = model(x).last_hidden_state[:, :1]
        else:
            out = model(pixel_values=x.flatten(0, 1))
            # CLIP's pooled output is its class token, normalised.
            is_clip = kind == "clip_vision_model"
            first = out.pooler_output if is_clip else out.last_hidden_state[:, 0]
            wanted = first.unflatten(0, (2, 4))
    assert torch.allclose(backbone(x), wanted, atol=1e-5)


def test_of_a_model_of_images_and_text_the_half_of_images_is_taken(tmp_path):
    transformers = pytest.importorskip("transformers")
    vision = config_of("clip_vision_model").to_dict()
    text = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
    config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=8)
    model = saved(tmp_path, config)
    backbone = build_backbone(BackboneConfig(name=str(tmp_path), num_frames=2))
    x = clip_of(backbone)
    with torch.no_grad():
        wanted = model.vision_model(pixel_values=x.flatten(0, 1)).pooler_output
    assert torch.allclose(backbone(x).flatten(0, 1), wanted, atol=1e-5)
    assert not any("text" in name for name, _ in backbone.named_parameters())


@pytest.mark.parametrize("kind", ["videomae", "vivit", "timesformer"])
def test_positions_in_time_are_interpolated_for_another_number_of_frames(tmp_path, kind, caplog):
    saved(tmp_path, config_of(kind, num_frames=4), image_mean=[0.5] * 3, image_std=[0.5] * 3)
    name = str(tmp_path)
    same = build_backbone(BackboneConfig(name=name, num_frames=4))
    assert "interpolated" not in caplog.text
    with caplog.at_level(logging.WARNING):
        more = build_backbone(BackboneConfig(name=name, num_frames=8))
    assert f"{kind} are interpolated from 4 frames to 8" in caplog.text
    steps = VIDEO_STEPS[kind]
    assert more(clip_of(more)).shape == (2, 2 * steps, 24)
    short, long = same.network.embeddings, more.network.embeddings
    if kind == "timesformer":
        old, new = short.time_embeddings, long.time_embeddings
    else:
        class_tokens = int(kind == "vivit")
        old, new = short.position_embeddings, long.position_embeddings
        assert torch.equal(old[:, :class_tokens], new[:, :class_tokens])
        old = old[0, class_tokens:].unflatten(0, (steps, -1)).transpose(0, 1)
        new = new[0, class_tokens:].unflatten(0, (2 * steps, -1)).transpose(0, 1)
    # Twice as many: the ends stay, and three quarters of one and a quarter of the next follow.
    assert torch.allclose(new[:, 0], old[:, 0])
    assert torch.allclose(new[:, -1], old[:, -1])
    assert torch.allclose(new[:, 1], 0.75 * old[:, 0] + 0.25 * old[:, 1], atol=1e-6)


@pytest.mark.parametrize("kind", ["videomae", "vjepa2"])
def test_frames_that_no_tubelet_takes_are_named(kind):
    with pytest.raises(ValueError, match=r"must be a multiple of 2, .* got 5; take 6"):
        tiny(kind, num_frames=5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_backbone_stays_frozen_within_whatever_trains(kind):
    backbone = tiny(kind)
    parent = nn.Sequential(backbone, nn.Linear(backbone.width, 2)).train()
    assert not any(part.training for part in backbone.modules())
    parent(clip_of(backbone)).sum().backward()
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert backbone.slow_parameters() == []
    assert parent[1].weight.grad is not None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pooling", ["tokens", "frames", "clip"])
def test_every_slow_parameter_of_a_trained_backbone_learns(kind, pooling):
    backbone = tiny(kind, trained=True, pooling=pooling, num_frames=4).train()
    assert all(part.training for part in backbone.modules())
    y = backbone(clip_of(backbone))
    (y * torch.randn_like(y)).sum().backward()
    slow = backbone.slow_parameters()
    assert slow
    assert all(parameter.grad is not None for parameter in slow)


def test_the_fingerprint_is_of_weights_and_settings_and_of_no_place(tmp_path):
    for name in ("a", "b"):
        saved(tmp_path / name, config_of("vit"), image_mean=[0.5] * 3, image_std=[0.5] * 3)
    first, second, other = (
        build_backbone(BackboneConfig(name=str(tmp_path / name), pooling=pooling))
        for name, pooling in (("a", "frames"), ("b", "frames"), ("a", "tokens"))
    )
    assert first.fingerprint() == second.fingerprint() != other.fingerprint()
    with torch.no_grad():
        next(second.network.parameters()).flatten()[0] += 1e-3
    assert first.fingerprint() != second.fingerprint()


def test_clips_of_another_form_are_refused():
    backbone = tiny("vit")
    with pytest.raises(ValueError, match=r"clips of 4 frames, got 3; .*num_frames=3"):
        backbone(clip_of(backbone)[:, :3])
    with pytest.raises(ValueError, match=r"frames of 3 x 32 x 32, got 3 x 16 x 32"):
        backbone(clip_of(backbone)[..., :16, :])


def test_unknown_names_are_told_in_sentences(tmp_path):
    pytest.importorskip("transformers")
    for name, said in (
        ("untrained:resnet-base", "one of videomae"),
        ("untrained:vit-huge", "-tiny, -base, -large"),
        (str(tmp_path), "config.json"),
        ("custom:no_such_package:build", "custom:PACKAGE.MODULE:FUNCTION that can be imported"),
        ("custom:math:build", "custom:PACKAGE.MODULE:FUNCTION that can be imported"),
        ("custom:math", "custom:PACKAGE.MODULE:FUNCTION that can be imported"),
    ):
        with pytest.raises(ValueError, match=said):
            build_backbone(BackboneConfig(name=name))
    config_of("bert").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="which is a bert; write a function"):
        build_backbone(BackboneConfig(name=str(tmp_path)))
    with pytest.raises(FileNotFoundError, match="no weights"):
        build_backbone(BackboneConfig(name=f"mobilenet:{tmp_path}/none.pth"))


def test_weights_that_are_missing_are_not_made_up(tmp_path):
    import json

    saved(tmp_path, config_of("vit"))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ValueError, match=r"all weights of a vit, got none of .* \.\.\.:"):
        build_backbone(BackboneConfig(name=str(tmp_path)))


def test_a_preprocessor_that_is_absent_is_said(tmp_path, caplog):
    saved(tmp_path, config_of("vit"))
    backbone = build_backbone(BackboneConfig(name=str(tmp_path)))
    assert backbone.framing.std == IMAGENET_STD
    assert "normalised as for ImageNet" in caplog.text


def test_pooling_by_hand():
    """Two moments of two places: the class tokens where there are any, else means."""
    places = torch.tensor([[[[1.0], [3.0]], [[5.0], [9.0]]]])
    bare = Seen(places=places)
    assert bare.pooled("tokens", "class").flatten().tolist() == [1, 3, 5, 9]
    assert bare.pooled("frames", "class").flatten().tolist() == [2, 7]
    assert bare.pooled("clip", "class").flatten().tolist() == [4.5]
    of_frames = Seen(places=places, steps=torch.tensor([[[10.0], [20.0]]]))
    assert of_frames.pooled("frames", "class").flatten().tolist() == [10, 20]
    assert of_frames.pooled("clip", "class").flatten().tolist() == [15]
    assert of_frames.pooled("frames", "mean").flatten().tolist() == [2, 7]
    of_clip = Seen(places=places, clip=torch.tensor([[30.0]]))
    assert of_clip.pooled("clip", "class").flatten().tolist() == [30]
    assert of_clip.pooled("frames", "class").flatten().tolist() == [2, 7]
    assert of_clip.pooled("clip", "mean").flatten().tolist() == [4.5]


def test_configs_that_cannot_be_are_refused():
    for name, value in (("pooling", "max"), ("summary", "max"), ("num_frames", 0)):
        with pytest.raises((ValueError, TypeError), match=name):
            BackboneConfig(name="untrained:vit-tiny", **{name: value})


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["videomae", "clip"])
def test_a_backbone_gives_the_same_on_a_gpu(kind):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    backbone = tiny(kind)
    x = clip_of(backbone)
    wanted = backbone(x)
    assert torch.allclose(backbone.cuda()(x.cuda()).cpu(), wanted, atol=1e-4)
