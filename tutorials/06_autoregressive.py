# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

# %% [markdown]
# # One variable after the other
#
# Any distribution of $D$ variables is a product of conditionals,
#
# $$p(x) = \prod_{d=1}^D p(x_d \mid x_1, \dots, x_{d-1}) ,$$
#
# and an autoregressive model has a network for each factor. Its log-probability is exact, without a
# bound and without a normalising constant; a draw is made one variable after the other. In
# `pyro_deepgen.autoregressive` such models are Pyro distributions: likelihoods, priors and guides.
# This tutorial checks the chain rule, trains NADE on digits, completes digits of which any part is
# seen, draws digits with a PixelCNN, and gives a VAE a PixelCNN as decoder.
#
# Run it as a script (`python tutorials/06_autoregressive.py`, pictures go to the folder
# `06_autoregressive`) or cell by cell. `SMOKE=1` makes every run short.

# %%
import math
import os
import time
from pathlib import Path

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from sklearn.datasets import load_digits

from pyro_deepgen.autoregressive import (
    NADE,
    GatedPixelCNN,
    LinearAutoregressive,
    OrderlessNADE,
)
from pyro_deepgen.latent import vae
from pyro_deepgen.plots import image_grid

SMOKE = os.environ.get("SMOKE") == "1"
PICTURES = Path("06_autoregressive")
PICTURES.mkdir(exist_ok=True)


def short(number, few):
    """A smaller number in short mode."""
    return few if SMOKE else number


torch.set_num_threads(1)
pyro.set_rng_seed(0)

# %% [markdown]
# ## 1. The chain rule
#
# The simplest model is a logistic regression of each variable on those before it. With four binary
# variables all 16 states can be listed, and whatever the weights are, their probabilities sum to 1.

# %%
small = LinearAutoregressive(4)
with torch.no_grad():
    for parameter in small.parameters():
        parameter.normal_()
states = small.enumerate_support()
probabilities = small.log_prob(states).exp()
print(f"{len(states)} states, sum of their probabilities {probabilities.sum():.6f}")
draws = small.sample((20_000,))
shares = torch.stack([(draws == state).all(-1).float().mean() for state in states])
error = (probabilities * (1 - probabilities) / 20_000).sqrt()
print(
    f"largest deviation of 20,000 draws: {((shares - probabilities) / error).abs().max():.1f}",
    end="",
)
print(" standard errors")

# %% [markdown]
# ## 2. NADE on digits
#
# The data are 1,797 digits of 8 x 8 pixels, white where the grey level is above one half.
# NADE gives each pixel a layer of hidden units that sees the pixels before it; weights
# are shared, so that all 64 conditionals cost about as much as one network. It is observed in a
# plate like any distribution, and `SVI` with an empty guide maximises the likelihood.

# %%
digits = torch.as_tensor(load_digits().images, dtype=torch.float32) / 16
order = torch.randperm(len(digits))
digits = (digits[order] > 0.5).float()
labels = torch.as_tensor(load_digits().target)[order]
train, test = digits[:1500], digits[1500:]


def learn(model, data, num_epochs, rate=0.005):
    """Maximise the likelihood by SVI with a falling rate; gives the mean loss of every epoch."""

    def program(x):
        pyro.module("model", model)
        with pyro.plate("digits", len(x)):
            pyro.sample("x", model, obs=x)

    model.train()
    decay = 0.05 ** (1 / (num_epochs * math.ceil(len(data) / 100)))
    optim = pyro.optim.ClippedAdam({"lr": rate, "lrd": decay})
    svi = SVI(program, lambda x: None, optim, Trace_ELBO())
    losses = []
    for _ in range(num_epochs):
        batches = data[torch.randperm(len(data))].split(100)
        losses.append(sum(svi.step(batch) for batch in batches) / len(data))
    model.eval()
    return losses


flat_train, flat_test = train.flatten(1), test.flatten(1)
models = {
    "each pixel by itself": None,
    "LinearAutoregressive": LinearAutoregressive(64),
    "NADE": NADE(64, 64),
}
for name, model in models.items():
    if model is None:
        mean = flat_train.mean(0).clamp(0.001, 0.999)
        found = torch.distributions.Bernoulli(mean).log_prob(flat_test).sum(-1)
    else:
        learn(model, flat_train, short(40, 1))
        with torch.no_grad():
            found = model.log_prob(flat_test)
    error = found.std() / len(found) ** 0.5
    print(f"{name:22} {found.mean():7.2f} +- {error:.2f} nats a test digit")

# %% [markdown]
# A draw takes 64 steps, but nothing is computed twice: NADE carries the sum of the hidden layer
# along, and adds one row of weights at a time. `naive_sample` is there for comparison. It runs the
# whole network for each pixel, and with the same seed it gives the same draw.

# %%
nade = models["NADE"]
times = {}
for name, draw in (("sample", nade.sample), ("naive_sample", nade.naive_sample)):
    torch.manual_seed(1)
    begin = time.perf_counter()
    drawn = draw((200,))
    times[name] = time.perf_counter() - begin, drawn
same = torch.equal(times["sample"][1], times["naive_sample"][1])
print(f"same draws: {same}; {times['naive_sample'][0] / times['sample'][0]:.0f} times as fast")
figure = image_grid(
    torch.cat([test[:12], times["sample"][1][:12].reshape(-1, 8, 8)]),
    ncols=12,
    title="Test digits, and draws of NADE",
    row_labels=["digits", "draws"],
)
figure.savefig(PICTURES / "nade.png", dpi=120)
figure

# %% [markdown]
# ## 3. Completing what is half seen
#
# If the first variables are known and the last are missing, one goes on drawing, and the completion
# is exact. If the known pixels come last, a model with a fixed order has to guess the first ones
# blindly and to correct by weights; `impute` says which of the two it did, and how many of its
# weighted guesses count.

# %%
upper = torch.zeros(8, 8, dtype=torch.bool)
upper[:4] = True
for name, mask in (("upper half", upper), ("lower half", ~upper)):
    done = nade.impute(flat_test[:8], mask.flatten(), num_particles=500)
    size = done.effective_sample_size.mean()
    how = "" if done.method == "exact" else f", effective sample size {size:.1f} of 500 particles"
    print(f"{name} seen: {done.method}{how}")

# %% [markdown]
# An order-agnostic NADE is trained on all orders at once: the mask of what is known is an input.
# For every mask it has an order with the known pixels first, so that any part can be completed.

# %%
orderless = OrderlessNADE(64, (256, 256))
learn(orderless, flat_train, short(400, 2), rate=0.003)
with torch.no_grad():
    one, many = (model.log_prob(flat_test).mean() for model in (orderless, orderless.ensemble(16)))
print(f"one order: {one:.2f} nats a test digit; the mean of 16 orders: {many:.2f}")

masks = {
    "upper": upper,
    "lower": ~upper,
    "left": upper.T,
    "scattered": torch.rand(8, 8) < 0.3,
}
rows, names = [test[:8]], ["digit"]
for name, mask in masks.items():
    done = orderless.impute(flat_test[:8], mask.flatten())
    rows += [torch.where(mask, test[:8], 0.5), done.value.reshape(-1, 8, 8)]
    names += [f"{name} seen", done.method]
figure = image_grid(torch.cat(rows), ncols=8, title="Completed digits", row_labels=names)
figure.savefig(PICTURES / "completed.png", dpi=120)
figure

# %% [markdown]
# ## 4. PixelCNN
#
# NADE does not know that pixels lie in a plane. A PixelCNN is made of convolutions with masked
# kernels, so that a pixel sees those above it and to its left. The gated one has two stacks, which
# together see all of them. `context_dim` gives all layers a context, here the class of the digit.

# %%
classes = torch.eye(10)
net = GatedPixelCNN((1, 8, 8), num_layers=5, num_channels=24, first_kernel_size=5, context_dim=10)
images, kinds = train[:, None], classes[labels[:1500]]


def classes_model(x, kind):
    """Digits of known classes."""
    pyro.module("net", net)
    with pyro.plate("digits", len(x)):
        pyro.sample("x", net.condition(kind), obs=x)


NUM_EPOCHS = short(25, 1)
decay = 0.05 ** (1 / (NUM_EPOCHS * 15))
optim = pyro.optim.ClippedAdam({"lr": 0.005, "lrd": decay})
svi = SVI(classes_model, lambda *args: None, optim, Trace_ELBO())
net.train()
for _ in range(NUM_EPOCHS):
    for rows in torch.randperm(1500).split(100):
        svi.step(images[rows], kinds[rows])
net.eval()
with torch.no_grad():
    by_class = torch.stack(
        [net.condition(classes[k]).log_prob(test[:, None]) for k in range(10)], -1
    )
    own = by_class.gather(1, labels[1500:, None])[:, 0]
    without = by_class.logsumexp(1) - math.log(10)
print(f"{own.mean():.2f} nats a test digit given its class, {without.mean():.2f} without it")
right = (by_class.argmax(1) == labels[1500:]).float().mean()
print(f"the class under which a digit is most probable is its own for {right:.1%}")

# %% [markdown]
# The last line is Bayes' rule: a model of each class is a classifier. Draws, a row for each class:

# %%
drawn = net.condition(classes[:, None].expand(10, 10, 10)).sample()
figure = image_grid(
    drawn.reshape(-1, 8, 8),
    ncols=10,
    title="Draws of the PixelCNN, by class",
    row_labels=[str(k) for k in range(10)],
)
figure.savefig(PICTURES / "pixel_cnn.png", dpi=120)
figure

# %% [markdown]
# ## 5. A PixelVAE
#
# In a VAE the decoder's pixels are independent given the latent code, which is why its pictures are
# noisy or smooth. With a PixelCNN as likelihood the code says what the picture shows, and the
# network draws the pixels in accord with each other. Here the decoder makes a map of four channels,
# and each pixel sees its place of it (`context_channels`). The KL divergence tells how much the
# code carries: a network with a large field of view, or one that is given the same vector
# everywhere (`context_dim`), can learn to do without any code.

# %%
rows, names = [test[:12]], ["digits"]
for name, likelihood in (
    ("independent pixels", None),
    (
        "PixelCNN",
        GatedPixelCNN(
            (1, 8, 8), num_layers=2, num_channels=16, first_kernel_size=3, context_channels=4
        ),
    ),
):
    pair = vae((1, 8, 8), 8, (128,), likelihood=likelihood)
    svi = SVI(pair.model, pair.guide, pyro.optim.ClippedAdam({"lr": 0.003}), Trace_ELBO())
    for _ in range(short(60, 1)):
        for batch in images[torch.randperm(1500)].split(100):
            svi.step(batch)
    pair.eval()
    with torch.no_grad():
        bound = -Trace_ELBO(num_particles=10).loss(pair.model, pair.guide, test[:, None])
        posterior = pair.encode(test[:, None])
        kl = torch.distributions.kl_divergence(
            posterior.base_dist, torch.distributions.Normal(0.0, 1.0)
        ).sum(-1)
        rows.append(pair.sample(12).reshape(-1, 8, 8))
    names.append(name)
    print(f"{name:20} ELBO {bound / len(test):7.2f} nats, of which KL {kl.mean():5.2f}")
figure = image_grid(torch.cat(rows), ncols=12, title="Draws of two VAEs", row_labels=names)
figure.savefig(PICTURES / "pixel_vae.png", dpi=120)
figure

# %% [markdown]
# What else there is: `MADE` with one or many masks, `RNADE` for real-valued data, `NADEk`,
# `NeuralAutoregressiveNet`, `PixelCNN` as first published, `PixelRNN` with its two kinds of LSTM,
# and `WaveNet` for sound; outputs of classes, Gaussians and mixtures.
