"""ActFusion and DiffAct in their most literal form: one formula after another, one video at a time.

Channels first, [1, channel, time], with the parameter names of the released state dicts. Written
from the definitions alone: what the package's models must equal and beat. Whatever a step of the
definition names is computed where it is named, also where it came out the same before; the table
of neighbours alone is kept, per layer.
"""

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

BIAS_ROWS, ZERO_ROW, FARTHEST = 20_000, 10_000, 100
SALADS_LAMBDAS = {
    "encoder_ce_loss": 0.5,
    "encoder_mse_loss": 0.1,
    "encoder_boundary_loss": 0.0,
    "decoder_ce_loss": 0.5,
    "decoder_mse_loss": 0.1,
    "decoder_boundary_loss": 0.1,
}


class ReferenceLayer(nn.Module):
    """y = x + FFN(IN(conv(x) + attention(x, condition)))."""

    def __init__(self, dim, kernel, dilation, condition_dim, dropout, bias):
        super().__init__()
        self.kernel, self.dilation = kernel, dilation
        self.pad = kernel // 2 * dilation
        self.dropout = nn.Dropout(dropout)
        self.conv_block = nn.Sequential(
            nn.Conv1d(dim, dim, kernel, padding=self.pad, dilation=dilation)
        )
        self.att_linear_q = nn.Conv1d(dim + condition_dim, dim, 1)
        self.att_linear_k = nn.Conv1d(dim + condition_dim, dim, 1)
        self.att_linear_v = nn.Conv1d(dim, dim, 1)
        self.rel_pos_emb = nn.Embedding(BIAS_ROWS, 1) if bias else None
        self.norm = nn.InstanceNorm1d(dim, affine=False, track_running_stats=False, eps=1e-5)
        self.ffn_block = nn.Sequential(nn.Conv1d(dim, dim, 1), nn.ReLU(), nn.Conv1d(dim, dim, 1))
        self.positions = torch.empty(0, kernel, dtype=torch.long)

    def neighbours(self, time):
        """Where the neighbours t + (j - k // 2) * dilation lie once padded, and which exist."""
        if len(self.positions) < time:
            taps = torch.arange(self.kernel) * self.dilation
            self.positions = torch.arange(time)[:, None] + taps
        positions = self.positions[:time]
        return positions, (positions >= self.pad) & (positions < self.pad + time)

    def attention(self, x, z):
        positions, valid = self.neighbours(x.shape[2])
        valid = valid.to(x.dtype)
        queries = self.att_linear_q(z)
        keys, values = (
            F.pad(padless, (self.pad, self.pad))
            .index_select(2, positions.flatten())
            .unflatten(2, positions.shape)
            for padless in (self.att_linear_k(z), self.att_linear_v(x))
        )
        logits = torch.einsum("bdt,bdtk->btk", queries, keys)
        if self.rel_pos_emb is not None:
            steps = (torch.arange(self.kernel) * self.dilation).clamp(max=FARTHEST)
            logits = logits + self.rel_pos_emb(ZERO_ROW + steps)[:, 0]
        logits = logits / math.sqrt(x.shape[1]) + torch.log(valid + 1e-6)
        weights = logits.softmax(2) * valid
        return torch.einsum("btk,bdtk->bdt", weights, values)

    def forward(self, x, condition=None):
        dropped = z = self.dropout(x)
        if condition is not None:
            z = torch.cat([dropped, self.dropout(condition)], 1)
        mixed = self.conv_block(dropped) + self.attention(dropped, z)
        return x + self.ffn_block(self.norm(mixed))


class ReferenceLayers(nn.Module):
    """Layer i has dilation 2^i."""

    def __init__(self, num_layers, dim, kernel, condition_dim, dropout, bias):
        super().__init__()
        self.layers = nn.ModuleList(
            ReferenceLayer(dim, kernel, 2**i, condition_dim, dropout, bias)
            for i in range(num_layers)
        )


class ReferenceEncoder(nn.Module):
    """From features to logits and the condition of the decoder."""

    def __init__(
        self, num_labels, feature_dim, num_layers, dim, kernel, condition_layers, dropouts, bias
    ):
        super().__init__()
        self.condition_layers = condition_layers
        layer_dropout, channel_dropout, frame_dropout = dropouts
        self.channel_dropout = nn.Dropout1d(channel_dropout)
        self.frame_dropout = nn.Dropout1d(frame_dropout)
        self.conv_in = nn.Conv1d(feature_dim, dim, 1)
        self.encoder = ReferenceLayers(num_layers, dim, kernel, 0, layer_dropout, bias)
        self.conv_out = nn.Conv1d(dim, num_labels, 1)

    def forward(self, features):
        x = self.channel_dropout(features)
        x = self.conv_in(self.frame_dropout(x.mT).mT)
        outputs = []
        for layer in self.encoder.layers:
            x = layer(x)
            outputs.append(x)
        return self.conv_out(x), torch.cat([outputs[i] for i in self.condition_layers], 1)


def step_embedding(t, width):
    """Sines, then cosines, of t * 10000^(-m / (width / 2 - 1)), the frequencies in float32."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half).float() * (-math.log(10_000) / (half - 1)))
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


def swish(x):
    return x * torch.sigmoid(x)


class ReferenceDecoder(nn.Module):
    """From noisy labels in [0, 1], a step and the condition to logits."""

    def __init__(self, num_labels, condition_dim, num_layers, dim, kernel, step_dim, dropout, bias):
        super().__init__()
        self.step_dim = step_dim
        self.time_in = nn.ModuleList(nn.Linear(step_dim, step_dim) for _ in range(2))
        self.conv_in = nn.Conv1d(num_labels, dim, 1)
        self.module = ReferenceLayers(num_layers, dim, kernel, condition_dim, dropout, bias)
        self.module.time_proj = nn.Linear(step_dim, dim)
        self.conv_out = nn.Conv1d(dim, num_labels, 1)

    def forward(self, noisy, t, condition):
        embedded = step_embedding(t, self.step_dim)
        for linear in self.time_in:
            embedded = swish(linear(embedded))
        x = self.conv_in(noisy) + self.module.time_proj(embedded)[:, :, None]
        for layer in self.module.layers:
            x = layer(x, condition)
        return self.conv_out(x)


class Schedule:
    """Cosine schedule over 1000 steps, in float64."""

    def __init__(self, num_steps=1000):
        ends = torch.arange(num_steps + 1, dtype=torch.float64)
        curve = torch.cos((ends / num_steps + 0.008) / 1.008 * math.pi / 2) ** 2
        curve = curve / curve[0]
        self.betas = (1 - curve[1:] / curve[:-1]).clip(0, 0.999)
        self.alphas_cumprod = torch.cumprod(1 - self.betas, 0)
        self.sqrt_recip_alphas_cumprod = torch.sqrt(1 / self.alphas_cumprod)
        self.sqrt_recipm1_alphas_cumprod = torch.sqrt(1 / self.alphas_cumprod - 1)


def pick(table, t):
    """Entries of a table, to be multiplied with [1, label, time]; they keep its float64."""
    return table[t][:, None, None]


class ReferenceDiffusion(nn.Module):
    """The whole model; `dropouts` are those of layer, channel, frame and decoder."""

    def __init__(
        self,
        num_labels,
        feature_dim,
        encoder_layers,
        encoder_dim,
        encoder_kernel,
        decoder_layers,
        decoder_dim,
        decoder_kernel,
        step_dim,
        condition_layers,
        dropouts,
        scale,
        bias,
        mask_token,
    ):
        super().__init__()
        self.num_labels, self.scale = num_labels, scale
        self.schedule = Schedule()
        self.encoder = ReferenceEncoder(
            num_labels,
            feature_dim,
            encoder_layers,
            encoder_dim,
            encoder_kernel,
            condition_layers,
            dropouts[:3],
            bias,
        )
        self.decoder = ReferenceDecoder(
            num_labels,
            len(condition_layers) * encoder_dim,
            decoder_layers,
            decoder_dim,
            decoder_kernel,
            step_dim,
            dropouts[3],
            bias,
        )
        if mask_token:
            self.mask_token = nn.Parameter(torch.empty(1, feature_dim, 1))
            nn.init.xavier_uniform_(self.mask_token)

    def encode(self, features):
        return self.encoder(features)

    def decode(self, noisy, t, condition):
        return self.decoder(noisy, t, condition)

    def as_input(self, state):
        """A state, cut at the scale and mapped to [0, 1]; the decoder always gets float32."""
        return ((state.clamp(-self.scale, self.scale) / self.scale + 1) / 2).float()

    @torch.no_grad()
    def sample(
        self, features, total_length=None, *, eta=1.0, seed=0, noises=None, steps=25, states=None
    ):
        """Probabilities [1, label, time]: encoder once, then DDIM.

        Steps of `features` [1, feature, time] that are missing to `total_length` are mask tokens.
        Noise is that of `seed`, or recorded: the first state, then one of each step but the last.
        A list given as `states` gets the pair (state, predicted data) of each step.
        """
        if total_length is not None:
            hidden = total_length - features.shape[2]
            features = torch.cat([features, self.mask_token.expand(-1, -1, hidden)], 2)
        _, condition = self.encode(features)
        recorded = None if noises is None else iter(noises)
        torch.manual_seed(seed)
        state = torch.randn(1, self.num_labels, features.shape[2])
        if recorded is not None:
            state = next(recorded).float()
        alphas = self.schedule.alphas_cumprod
        times = torch.linspace(-1, len(alphas) - 1, steps + 1).int().tolist()[::-1]
        for now, following in pairwise(times):
            t = torch.tensor([now])
            probs = self.decode(self.as_input(state), t, condition).softmax(1)
            data = (2 * probs - 1) * self.scale
            if states is not None:
                states.append((state, data))
            if following < 0:
                return (data / self.scale + 1) / 2
            noise_part = (pick(self.schedule.sqrt_recip_alphas_cumprod, t) * state - data) / pick(
                self.schedule.sqrt_recipm1_alphas_cumprod, t
            )
            alpha, next_alpha = alphas[now], alphas[following]
            sigma = eta * ((1 - alpha / next_alpha) * (1 - next_alpha) / (1 - alpha)).sqrt()
            kept = (1 - next_alpha - sigma**2).sqrt()
            drawn = torch.randn_like(state) if recorded is None else next(recorded, 0.0)
            state = data * next_alpha.sqrt() + kept * noise_part + sigma * drawn
        raise AssertionError("the last of the times is -1")

    def tas(self, raw_features, stride, *, eta=1.0, seed=0):
        """Segment [feature, frame]: the mean over all offsets, cut to the shortest of them."""
        return mean_of_offsets(
            self.sample(raw_features[None, :, offset::stride].contiguous(), eta=eta, seed=seed)
            for offset in range(stride)
        )

    def lta(self, observed_features, num_frames, stride, *, eta=1.0, seed=0):
        """The same for a video of `num_frames` whose first frames alone have features.

        Every offset has as many steps as the first.
        """
        return mean_of_offsets(
            self.sample(
                observed_features[None, :, offset::stride].contiguous(),
                -(-num_frames // stride),
                eta=eta,
                seed=seed,
            )
            for offset in range(stride)
        )

    def training_loss(
        self,
        features,
        labels,
        mask,
        t,
        noise,
        boundary,
        *,
        class_weights=None,
        soft_targets=None,
        condition_mask=None,
        lambdas=None,
    ):
        """Every term of one video, unweighted, and `total`, their sum weighted by `lambdas`.

        `mask` [1, 1, time] is 1 where a frame is visible, absent for none; `condition_mask`
        multiplies the condition (DiffAct).
        """
        lambdas = lambdas or SALADS_LAMBDAS
        if mask is not None:
            features = torch.where(mask > 0, features, self.mask_token)
        logits, condition = self.encode(features)
        if condition_mask is not None:
            condition = condition * condition_mask
        one_hot = F.one_hot(labels, self.num_labels).T[None].float()
        denoised = self.decode(self.diffused(one_hot, t, noise), t, condition)
        terms = {"encoder_boundary_loss": torch.zeros(())}
        for part, answer in (("encoder", logits), ("decoder", denoised)):
            terms[f"{part}_ce_loss"] = cross_entropy(answer, labels, class_weights, soft_targets)
            terms[f"{part}_mse_loss"] = smoothing(answer)
        terms["decoder_boundary_loss"] = boundary_error(denoised, boundary)
        terms["total"] = sum(lambdas[name] * term for name, term in terms.items())
        return terms

    def diffused(self, one_hot, t, noise):
        """What the decoder reads in training: labels with the noise of step t, in [0, 1]."""
        alpha = pick(self.schedule.alphas_cumprod, t)
        data = (2 * one_hot - 1) * self.scale
        return self.as_input(alpha.sqrt() * data + (1 - alpha).sqrt() * noise)


def mean_of_offsets(answers):
    answers = list(answers)
    shortest = min(answer.shape[2] for answer in answers)
    return torch.stack([answer[:, :, :shortest] for answer in answers]).mean(0)


def cross_entropy(logits, labels, class_weights, soft_targets):
    """Plain mean over frames; weights are not normalised, and unused with soft targets."""
    if soft_targets is not None:
        return -(soft_targets * logits.log_softmax(1)).sum(1).mean()
    return F.cross_entropy(logits, labels[None], class_weights, reduction="none").mean()


def smoothing(logits):
    """Mean of the squared change of log probability, at most 16, to the frame before."""
    log_probs = logits.log_softmax(1)
    change = log_probs[:, :, 1:] - log_probs[:, :, :-1].detach()
    return (change**2).clamp(0, 16).mean()


def boundary_error(logits, boundary):
    """How far 1 - (p_t . p_(t-1)) is from the boundary target of the later frame."""
    probs = logits.softmax(1)
    changed = 1 - torch.einsum("bkt,bkt->bt", probs[:, :, 1:], probs[:, :, :-1].detach())
    return F.binary_cross_entropy(changed.clamp(0, 1), boundary[:, 0, 1:])
