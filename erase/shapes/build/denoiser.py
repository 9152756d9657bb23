"""Trains the denoiser and its text encoder, and puts the ``StableDiffusionPipeline`` together."""

from __future__ import annotations

import re

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel, compute_snr
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from tqdm.auto import trange
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from erase.embedded import VOCABULARY
from erase.shapes.build.drawings import COMBINATIONS, Drawings

WIDTH = 96
MAX_TOKENS = 12
SPECIAL = ("<pad>", "<unk>", "<start>", "<end>")
SNR_CAP = 5.0


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words of the vocabulary, lower-cased; any other word is ``<unk>``."""
    words = sorted({word for caption in VOCABULARY.captions() for word in re.findall(r"\w+", caption.text)})
    ids = {token: index for index, token in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<start>", ids["<start>"]), ("<end>", ids["<end>"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<start>",
        eos_token="<end>",
        model_max_length=MAX_TOKENS,
    )


def make_text_encoder(tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    """Two transformer layers of width 96."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_unet(latent_size: int) -> UNet2DConditionModel:
    """3.8 M parameters; cross-attention at half and at a quarter of the latent's resolution."""
    return UNet2DConditionModel(
        sample_size=latent_size,
        block_out_channels=(48, 96, 96),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion 1.x's noise schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


class CaptionTokens:
    """The token ids of every caption of every combination, drawn at random per picture."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        def encode(texts: list[str]) -> Tensor:
            return tokenizer(texts, padding="max_length", max_length=MAX_TOKENS, return_tensors="pt").input_ids

        self.captions = torch.stack(
            [encode([t.format(**c.concepts) for t in VOCABULARY.templates]) for c in COMBINATIONS]
        )  # [240, templates, tokens]
        self.empty = encode([""])[0]

    def draw(self, combination: Tensor) -> Tensor:
        """Token ids ``[b, tokens]``: 10 % empty, half the full caption, the rest a shorter one."""
        count = len(combination)
        shorter = torch.randint(1, self.captions.shape[1], (count,))
        template = torch.where(torch.rand(count) < 0.55, torch.zeros_like(shorter), shorter)
        tokens = self.captions[combination, template]
        return torch.where(torch.rand(count, 1) < 0.1, self.empty, tokens)


def encode_drawings(vae: AutoencoderKL, drawings: Drawings) -> Tensor:
    """Latents of unit scale, ``[n, 4, 16, 16]``."""
    means = [vae.encode(images).latent_dist.mode() for images in drawings.images.split(256)]
    return torch.cat(means) * vae.config.scaling_factor


def train_denoiser(
    vae: AutoencoderKL, drawings: Drawings, steps: int, seed: int, batch_size: int = 32
) -> StableDiffusionPipeline:
    """Noise prediction with min-SNR weights (Hang et al. 2023, eq. 7, gamma 5); keeps the moving average."""
    torch.manual_seed(seed)
    latents, scheduler, tokenizer = encode_drawings(vae, drawings), make_scheduler(), make_tokenizer()
    captions, text_encoder, unet = CaptionTokens(tokenizer), make_text_encoder(tokenizer), make_unet(latents.shape[-1])
    parameters = [*unet.parameters(), *text_encoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1.2e-3, betas=(0.9, 0.99), weight_decay=1e-3)
    schedule = get_cosine_schedule_with_warmup(optimizer, 200, steps)
    average = EMAModel(parameters, decay=0.998, use_ema_warmup=True, power=0.8)
    for _ in (bar := trange(steps, desc="denoiser")):
        chosen = torch.randint(len(drawings), (batch_size,))
        noise = torch.randn(batch_size, *latents.shape[1:])
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (batch_size,))
        noisy = scheduler.add_noise(latents[chosen], noise, timesteps)
        states = text_encoder(captions.draw(drawings.combination[chosen])).last_hidden_state
        error = (unet(noisy, timesteps, states).sample - noise).pow(2).flatten(1).mean(1)
        snr = compute_snr(scheduler, timesteps)
        loss = (error * snr.clamp(max=SNR_CAP) / snr).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        average.step(parameters)
        bar.set_postfix(loss=f"{loss.item():.4f}")
    average.copy_to(parameters)
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
