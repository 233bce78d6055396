# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

# %% [markdown]
# # Normalizing flows
#
# A normalizing flow is a distribution that you can both draw from and score exactly: noise from a
# simple base, pushed through maps that can be undone. In Pyro it goes wherever a distribution
# goes. This tutorial starts from the change of variables, builds planar flows, RealNVP and Glow,
# uses a flow as a guide and as the prior of a VAE, and ends with what one does in a latent space:
# temperature, interpolation, directions of attributes.
#
# Run it as a script (`python tutorials/03_flows.py`, pictures go to the folder `03_flows`) or cell
# by cell. `SMOKE=1` makes every training run short.

# %%
import os
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

from pyro_deepgen import plots
from pyro_deepgen.datasets import dequantize, digits, frey_faces, toy
from pyro_deepgen.distributions import (
    FlowDistribution,
    attribute_direction,
    interpolate,
    manipulate,
)
from pyro_deepgen.fit import fit
from pyro_deepgen.infer import AutoFlow
from pyro_deepgen.latent import vae
from pyro_deepgen.metrics import LikelihoodFigure, log_likelihood
from pyro_deepgen.transforms import Logit, Planar, glow, planar, real_nvp, spline_coupling

SMOKE = os.environ.get("SMOKE") == "1"
PICTURES = Path("03_flows")
PICTURES.mkdir(exist_ok=True)


def short(number, few=2):
    """Few epochs or steps in short mode."""
    return few if SMOKE else number


def show(figure, name):
    """Keep a picture, and show it in a notebook."""
    figure.savefig(PICTURES / f"{name}.png", dpi=100)
    return figure


def standard_normal(num_dims):
    """The base of all flows here."""
    return dist.Normal(torch.zeros(num_dims), torch.ones(num_dims)).to_event(1)


torch.set_num_threads(1)
pyro.set_rng_seed(0)

# %% [markdown]
# ## 1. Change of variables
#
# Let $x$ have a density $p$, and let $f$ be a map with an inverse. A small region around $x$ holds
# as much probability before the map as after it, but its volume has changed by
# $|\det \partial f / \partial x|$. So $y = f(x)$ has the density
#
# $$ q(y) = p(x) \, \Big| \det \frac{\partial f}{\partial x} \Big|^{-1}, \qquad x = f^{-1}(y). $$
#
# A transform of this library gives value and log-determinant in one pass, each way. Here is the
# planar one, $f(x) = x + \hat u \tanh(w^\top x + b)$: it pushes all points along $\hat u$, on one
# side of a line forwards and on the other backwards. We set its parameters by hand, so that there
# is something to see, and compare the log-determinant with the Jacobian by autograd:

# %%
bend = Planar(2)
with torch.no_grad():
    bend.values.w.copy_(torch.tensor([1.5, 1.5]))
    bend.values.u.copy_(torch.tensor([1.2, -0.2]))
    x = torch.randn(2)
    y, log_det = bend.forward_and_log_det(x)
    back, log_det_back = bend.inverse_and_log_det(y)
jacobian = torch.autograd.functional.jacobian(bend, x)
print(f"log-determinant {log_det:.5f}, by autograd {torch.linalg.slogdet(jacobian)[1]:.5f}")
print(f"back again: error {(back - x).abs().max():.1e}, log-determinant {log_det_back:.5f}")

# %% [markdown]
# `FlowDistribution` puts base and transform together. Below, a net of lines before the map and
# after it: where the cells grow, the density falls, and where they are pressed together, it rises.

# %%
flow = FlowDistribution(standard_normal(2), bend)
ticks, fine = torch.linspace(-2.4, 2.4, 13), torch.linspace(-2.4, 2.4, 100)
lines = [torch.stack([t.expand(100), fine], -1) for t in ticks]
lines += [line.flip(-1) for line in lines]
axis = torch.linspace(-4, 4, 161)
plane = torch.cartesian_prod(axis, axis)
figure, axes = plt.subplots(1, 3, figsize=(9, 3.1), layout="constrained")
with torch.no_grad():
    for line in lines:
        for axes_of_lines, points in ((axes[0], line), (axes[1], flow.transform(line))):
            axes_of_lines.plot(*points.T, color="tab:blue", linewidth=0.8)
    density = flow.log_prob(plane).exp().reshape(161, 161)
axes[2].imshow(density.T, origin="lower", extent=(-4, 4, -4, 4), cmap="Blues")
for place, title in zip(axes, ("base $x$", "data $y = f(x)$", "density of $y$"), strict=True):
    place.set(title=title, xlim=(-4, 4), ylim=(-4, 4), aspect="equal")
figure.savefig(PICTURES / "change_of_variables.png", dpi=100)

# %% [markdown]
# It is a Pyro distribution, so `pyro.sample` takes it, in plates and with `obs`:

# %%
with pyro.plate("data", 5):
    print(pyro.sample("y", flow).shape)
print(f"probability within the picture {density.sum() * (axis[1] - axis[0]) ** 2:.3f}")

# %% [markdown]
# ## 2. Planar flows
#
# One planar layer bends the plane along one line. A flow is many of them, one after another, and
# their log-determinants add up. We fit two half moons by maximum likelihood. This needs no guide,
# only $-\log q$ of each batch. Scoring data runs the *inverse* of each layer, which for a planar
# flow is a root find, to machine precision and with exact gradients.


# %%
class NegativeLogLikelihood(torch.nn.Module):
    """What `fit` minimises: minus the log-density of a batch."""

    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, x):
        """Sum over the batch."""
        return -self.flow.log_prob(x).sum()


def train(flow, data, num_epochs, rate, **options):
    """Maximum likelihood, with a learning rate that falls to 0."""
    loss = NegativeLogLikelihood(flow)
    optimizer = torch.optim.Adam(loss.parameters(), rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, short(num_epochs))
    options = {"batch_size": 64, "clip_norm": 100.0, "progress": False, **options}
    fit(loss, data, optimizer, num_epochs=short(num_epochs), scheduler=scheduler, **options)
    return flow


moons, new_moons = toy("two_moons", 4000), toy("two_moons", 4000, seed=1)
flows = {}
for number in (1, 4, 16):
    layers = [planar(2) for _ in range(number)]
    flow = FlowDistribution(standard_normal(2), layers)
    flows[f"planar, K = {number}"] = train(flow, moons, 30, 2e-2, batch_size=250)


def densities(flows, name):
    """The density of each flow, beside data that it has not seen."""
    figure, axes = plt.subplots(
        1, len(flows) + 1, figsize=(2.4 * len(flows) + 2.4, 2.8), layout="constrained"
    )
    axes[0].scatter(*new_moons[:800].T, s=1)
    axes[0].set_title("data", fontsize=10)
    for place, (title, flow) in zip(axes[1:], flows.items(), strict=True):
        with torch.no_grad():
            score = flow.log_prob(new_moons).mean()
            values = flow.log_prob(plane).exp().reshape(161, 161)
        place.imshow(values.T, origin="lower", extent=(-4, 4, -4, 4), cmap="Blues", vmax=0.25)
        place.set_title(f"{title}: {score:.2f} nats", fontsize=10)
    for place in axes:
        place.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xticks=[], yticks=[])
    figure.savefig(PICTURES / f"{name}.png", dpi=100)


densities(flows, "planar")

# %% [markdown]
# The figures are mean log-densities of new data, so higher is better. A layer can do little: one or
# four are not enough for two moons, sixteen draw them. In more dimensions it takes more, since each
# layer still moves points along a single direction.
#
# ## 3. Coupling layers: NICE, RealNVP, splines
#
# A coupling layer leaves one part $x_A$ of the variables as it is, and moves the other part as a
# network of $x_A$ says:
#
# $$ y_A = x_A, \qquad y_B = e^{s(x_A)} \odot x_B + t(x_A). $$
#
# The network can be as large as we like and is never inverted; the Jacobian is triangular, and its
# log-determinant is $\sum s$. Layer after layer the parts change roles. That is RealNVP; with
# $s = 0$ it is NICE; with a monotone spline in place of the line, a neural spline flow.

# %%
layers = real_nvp(2, num_layers=6, hidden_dims=(64, 64))
flows = {
    "RealNVP": FlowDistribution(standard_normal(2), layers),
    "splines": FlowDistribution(
        standard_normal(2), spline_coupling(2, num_layers=4, hidden_dims=(64, 64))
    ),
}
for flow in flows.values():
    train(flow, moons, 30, 5e-3, batch_size=250)
densities(flows, "coupling")

# %% [markdown]
# Look at what lies between the moons: a bridge. A continuous map with an inverse cannot tear the
# plane, so a flow can make the bridge thin, but never cut it.
#
# Follow the trained RealNVP from noise to data. Points keep their colours. The first layer moves
# them up and down only, the second from side to side, and so on in turn:

# %%
noise = torch.randn(1500, 2)
steps = [noise]
with torch.no_grad():
    for layer in layers:
        steps.append(layer(steps[-1]))
figure, axes = plt.subplots(1, len(steps), figsize=(1.7 * len(steps), 2), layout="constrained")
for i, (place, points) in enumerate(zip(axes, steps, strict=True)):
    place.scatter(*points.T, c=torch.atan2(*noise.T), cmap="hsv", s=2)
    place.set(xlim=(-5, 5), ylim=(-5, 5), aspect="equal", xticks=[], yticks=[])
    place.set_title("noise" if i == 0 else f"after layer {i}", fontsize=10)
figure.savefig(PICTURES / "layers.png", dpi=100)

# %% [markdown]
# ## 4. A flow as a guide
#
# A substance decays: $c(t) = a e^{-k t}$. We know neither the amount $a$ nor the rate $k$, and have
# one measurement, at $t = 2$. It fixes one number, so the posterior lies along a curve.

# %%


def decay(measured):
    """Amount and rate, given one noisy measurement."""
    a = pyro.sample("a", dist.LogNormal(0.0, 1.0))
    k = pyro.sample("k", dist.LogNormal(0.0, 1.0))
    pyro.sample("c", dist.Normal(a * torch.exp(-2.0 * k), 0.05), obs=measured)


# %% [markdown]
# `AutoFlow` is an autoguide like those of Pyro; it takes a function that makes a transform of so
# many dimensions. With two unknowns we can check it: the evidence $\log p(c)$, which no ELBO can
# exceed, by adding up over a grid of $(\log a, \log k)$.

# %%
measured = torch.tensor(0.3)
log_a, log_k = torch.linspace(-5, 7, 601), torch.linspace(-6, 3, 601)
grid = torch.cartesian_prod(log_a, log_k)
conditioned = pyro.poutine.condition(decay, {"a": grid[:, 0].exp(), "k": grid[:, 1].exp()})
trace = pyro.poutine.trace(conditioned).get_trace(measured)
trace.compute_log_prob()
exact = sum(trace.nodes[name]["log_prob"] for name in ("a", "k", "c")) + grid.sum(-1)
cell = (log_a[1] - log_a[0]) * (log_k[1] - log_k[0])
evidence = exact.logsumexp(0) + cell.log()
print(f"log-evidence {evidence:.3f}")

guides = {
    "AutoNormal": AutoNormal(decay),
    "AutoMultivariateNormal": AutoMultivariateNormal(decay),
    "AutoFlow, RealNVP": AutoFlow(decay, partial(real_nvp, hidden_dims=(32, 32))),
}
draws = {}
for name, guide in guides.items():
    pyro.clear_param_store()
    elbo = Trace_ELBO(num_particles=32, vectorize_particles=True)
    svi = SVI(decay, guide, pyro.optim.ClippedAdam({"lr": 5e-3, "lrd": 0.998}), elbo)
    for _ in range(short(1500, 20)):
        svi.step(measured)
    with torch.no_grad():
        bounds = [-svi.evaluate_loss(measured) for _ in range(short(200, 2))]
        with pyro.plate("draws", 2000):
            drawn = guide(measured)
    draws[name] = torch.stack([drawn["a"].log(), drawn["k"].log()], -1)
    print(f"{name:22} ELBO {sum(bounds) / len(bounds):.3f}")

# %%
figure, axes = plt.subplots(1, 4, figsize=(11, 3.1), layout="constrained", sharey=True)
extent = (-5, 7, -6, 3)
image = (exact - exact.max()).exp().reshape(601, 601).T
axes[0].imshow(image, origin="lower", extent=extent, cmap="Blues", aspect="auto")
axes[0].set(title="exact posterior", ylabel="$\\log k$")
for place, (name, points) in zip(axes[1:], draws.items(), strict=True):
    place.contour(log_a, log_k, image, levels=[0.05, 0.5], colors="grey", linewidths=0.8)
    place.scatter(*points.T, s=1, color="tab:orange")
    place.set(title=name)
for place in axes:
    place.set(xlim=(-3, 4), ylim=(-4.5, 1.5), xlabel="$\\log a$")
figure.savefig(PICTURES / "guides.png", dpi=100)

# %% [markdown]
# The gap between ELBO and evidence is the Kullback-Leibler divergence from guide to posterior. A
# normal distribution has to cut the curve off; the flow bends along it. The draws carry their
# density from the pass that made them, so SVI never runs the inverse.
#
# ## 5. A flow as the prior of a VAE
#
# A VAE's codes have to fill its prior. With a prior that learns they need not: it goes where the
# codes are. `vae` takes any distribution. Same networks, same steps, two latent dimensions:

# %%
data = digits("threshold")
priors = {
    "normal prior": None,
    "flow prior": FlowDistribution(
        standard_normal(2), spline_coupling(2, num_layers=4, hidden_dims=(32, 32))
    ),
}
pairs, test = {}, {}
for name, prior in priors.items():
    pyro.set_rng_seed(1)
    pair = pairs[name] = vae((1, 8, 8), latent_dim=2, hidden_dims=(128, 128), prior=prior)
    loss = Trace_ELBO()(pair.model, pair.guide)
    optimizer = torch.optim.Adam(loss.parameters(), 2e-3)
    fit(loss, data.x_train, optimizer, num_epochs=short(60), batch_size=64, progress=False)
    test[name] = log_likelihood(pair.model, pair.guide, data.x_test, num_particles=short(1000, 20))
    print(f"{name:13} {LikelihoodFigure.nats(test[name], data.protocol)}")
gap = test["flow prior"] - test["normal prior"]
print(f"flow minus normal: {gap.mean():+.2f} +- {gap.std() / len(gap) ** 0.5:.2f} nats a digit")

figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
axis = torch.linspace(-5, 5, 201)
square = torch.cartesian_prod(axis, axis)
for place, (name, pair) in zip(axes, pairs.items(), strict=True):
    with torch.no_grad():
        codes = pair.encode(data.x_test).mean
        values = pair.prior.log_prob(square).exp().reshape(201, 201)
    place.imshow(values.T.sqrt(), origin="lower", extent=(-5, 5, -5, 5), cmap="Greys")
    dots = place.scatter(*codes.T, c=data.y_test, cmap="tab10", s=7)
    place.set(title=name, xlim=(-5, 5), ylim=(-5, 5), xlabel="$z_1$", ylabel="$z_2$")
figure.colorbar(dots, ax=axes, label="digit", ticks=range(10))
figure.savefig(PICTURES / "prior.png", dpi=100)

# %% [markdown]
# Grey is the prior (the square root of its density), dots are the codes of test digits. The normal
# prior pulls all codes towards one place; the learned one lets classes move apart, and lies mostly
# where they are. Any flow goes in, and so does any other distribution: there is no code in `vae`
# that knows about flows.
#
# ## 6. Glow: a flow of images
#
# Glow is made of coupling layers whose networks are convolutions. Between them, a 1x1 convolution
# mixes the channels, and an activation normalisation sets their scales by the first batch. Half of
# the variables come in late, at the fine scale. Seen from outside it is a map from a flat vector to
# an image: 64 numbers here, as many as pixels.
#
# Pixels have 17 grey levels, and the density of a model on such data can grow without bound. So
# noise spreads each level over its bin, anew in every batch; `Logit` then takes the unit interval
# to the real line.

# %%
data = digits("gray")
noisy = partial(dequantize, num_levels=17)
pyro.set_rng_seed(0)
layers = glow((1, 8, 8), num_levels=2, num_steps=4, hidden_channels=48)
flow = FlowDistribution(standard_normal(64), [layers, Logit(0.05)])
train(flow, data.x_train, 40, 3e-3, transform=noisy)
flow.eval()
with torch.no_grad():
    score = flow.log_prob(noisy(data.x_test))
print(LikelihoodFigure.bits(score, 64, 1 / 17, "17 levels, uniform dequantisation"))

# %% [markdown]
# (A code that knows nothing needs $\log_2 17 = 4.09$ bits.) `with_temperature` draws the base
# closer to its mean, by a factor $T$. Draws become smoother, and more alike; far below 1 all are
# near the average digit:

# %%
temperatures = (0.4, 0.7, 1.0)
pyro.set_rng_seed(3)
with torch.no_grad():
    drawn = [flow.with_temperature(t).sample((12,)) for t in temperatures]
names = [f"T = {t}" for t in temperatures]
show(plots.image_grid(torch.cat(drawn), ncols=12, title="Draws of Glow", row_labels=names), "draws")

# %% [markdown]
# ## 7. Between two digits
#
# Every image has one latent vector, and every latent vector is an image. So we can go from digit to
# digit through the latent space, and compare with a mixture of pixels. The length of 64 independent
# normal variables is nearly always close to 8. A straight line is shorter in its middle, where no
# draw ever is; the great circle keeps the length.

# %%
start, end = (noisy(data.x_test[data.y_test == c][0]) for c in (0, 4))
with torch.no_grad():
    ways = {
        "line": interpolate(flow, start, end, 11),
        "great circle": interpolate(flow, start, end, 11, path="great_circle"),
        "pixels": torch.lerp(start, end, torch.linspace(0, 1, 11).reshape(-1, 1, 1, 1)),
    }
    for name, images in ways.items():
        lengths = flow.transform.inverse_and_log_det(images)[0].norm(dim=-1)
        print(
            f"{name:12} length at the ends {lengths[0]:.1f} and {lengths[-1]:.1f}, in the middle "
            f"{lengths[5]:.1f}; log-density in the middle {flow.log_prob(images[5]):.0f}"
        )
title = "From 0 to 4"
show(plots.image_grid(torch.cat(list(ways.values())), 11, title, list(ways)), "interpolation")

# %% [markdown]
# The mixture of pixels shows both digits at once. The latent ways close the 0 step by step. Note
# that the middle of the line has the highest density of the three: high density does not mean
# typical.
#
# ## 8. Directions of attributes
#
# Take the mean latent vector of images that have an attribute, minus that of images that have not.
# Moving along this direction gives an image more of the attribute. With the attribute "is an 8 and
# not a 3", we move threes of the test set:

# %%
amounts = torch.linspace(-0.5, 1.5, 9)
threes, eights = (noisy(data.x_train[data.y_train == c]) for c in (3, 8))
with torch.no_grad():
    direction = attribute_direction(flow, eights, threes)
    test_threes = noisy(data.x_test[data.y_test == 3])
    moved = manipulate(flow, test_threes, direction, amounts)
shift = eights.mean(0) - threes.mean(0)
added = test_threes + amounts.reshape(-1, 1, 1, 1, 1) * shift
ways = {"Glow": moved, "pixels": added}
rows = torch.cat([images[:, i] for images in ways.values() for i in range(3)])
labels = [name for name in ways for _ in range(3)]
show(plots.image_grid(rows, 9, "From 3 towards 8: amounts -0.5 to 1.5", labels), "eights")

# %% [markdown]
# Below the same threes stand with the mean difference of the *pixels* added. Does the result only
# look like an 8? We ask for the nearest training image, and how many pixels have left the range:

# %%
for name, images in ways.items():
    for amount, some in list(zip(amounts, images, strict=True))[2::2]:
        nearest = torch.cdist(some.flatten(1), data.x_train.flatten(1)).argmin(-1)
        as_eight = (data.y_train[nearest] == 8).float().mean()
        outside = ((some < 0) | (some > 1)).float().mean()
        print(
            f"{name:6} amount {amount:.1f}: {as_eight:4.0%} are nearest to an 8, "
            f"{outside:4.1%} of the pixels are outside of [0, 1]"
        )

# %% [markdown]
# The nearest neighbour is easily pleased: the sums of pixels pass as 8 more often, though they
# leave the range of grey levels more than twice as often. The pictures show the difference: in the
# first two rows the flow closes the strokes and leaves dark holes in between, where addition lays
# a grey 8 over the 3. (The third ends as a blur either way. It is a small flow.)
#
# An attribute needs no labels if it can be measured. In the Frey faces, 28 x 20 pixels, the region
# of the mouth is dark where the man shows his teeth and bright where he purses his lips; and the
# dark parts of a frame lie further left or right as he turns his head. We split the frames at the
# outer quarters of each measure. As in the paper, the levels are made coarser first, to 5 bits; a
# lower `bound` on the scales keeps the flow calm where there are no data.
#
# This section needs `frey_faces.npz` in the folder that `PYRO_DEEPGEN_DATA` names, and is skipped
# without it.


# %%
def lips(x):
    """Brightness of the region of the mouth."""
    return x[:, 0, 18:24, 5:15].mean((1, 2))


def head(x):
    """Column around which the dark parts lie."""
    dark = 1 - x[:, 0]
    return (dark * torch.arange(20.0)).sum((1, 2)) / dark.sum((1, 2))


try:
    faces = frey_faces()
except FileNotFoundError as error:
    faces = None
    print(f"{error}\nSkipping the faces.")

if faces is not None:
    noisy = partial(dequantize, num_levels=32)
    x_train, x_test = ((x * 31).round() / 31 for x in (faces.x_train, faces.x_test))
    x_train = x_train[: short(len(x_train), 128)]
    pyro.set_rng_seed(0)
    layers = glow((1, 28, 20), num_levels=2, num_steps=4, hidden_channels=32, bound=2.0)
    flow = FlowDistribution(standard_normal(560), [layers, Logit(0.05)])
    train(flow, x_train, 40, 3e-3, transform=noisy)
    flow.eval()

    amounts, rows, labels = torch.linspace(-1, 1, 9), [], []
    for name, measure in {"lips": lips, "head": head}.items():
        values = measure(x_train)
        low, high = values.quantile(0.25), values.quantile(0.75)
        few, many = noisy(x_train[values < low]), noisy(x_train[values > high])
        with torch.no_grad():
            direction = attribute_direction(flow, many, few)
            moved = manipulate(flow, noisy(x_test[:100]), direction, amounts)
        rows += [moved[:, i] for i in (3, 11)]
        labels += [f"{name} {i + 1}" for i in range(2)]
        print(
            f"{name}: {measure(few).mean():.2f} and {measure(many).mean():.2f} in the outer "
            f"quarters; test frames moved by -1, 0, 1: "
            + ", ".join(f"{measure(moved[i]).mean():.2f}" for i in (0, 4, 8))
        )
    picture = plots.image_grid(torch.cat(rows), 9, "Amounts -1 to 1 of two attributes", labels)

# %%
show(picture, "faces") if faces is not None else print("no faces")

# %% [markdown]
# The mouth pales to the right, and the dark background moves with the head. The measures confirm
# it: from the middle, a step of 1 goes about as far as the outer quarters are, or further. A
# direction knows only what differs between the two sets, whatever the cause: here the contrast
# rises to the right, too.
#
# ## Where to go from here
#
# - `maf` and `iaf` are autoregressive flows: quick one way, D times slower the other way, as theory
#   has it, and here without running the whole network D times. `sylvester` and `radial` are
#   further elementary ones.
# - All transforms take `context_dim`, and `flow.condition(context)` is the distribution given a
#   context: `glow((1, 8, 8), context_dim=10)` is class-conditional.
# - `AutoFlow` takes a network of the data as `context`, for a guide that serves all data sets, and
#   is what `pyro.infer.reparam.NeuTraReparam` asks for, to run HMC in the straightened space.
