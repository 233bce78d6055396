# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

# %% [markdown]
# # Variational autoencoders
#
# A variational autoencoder (VAE) is a Pyro model with a neural network in it, and a guide with
# another. You know the rest: `SVI`, an ELBO, `Predictive`. This tutorial goes from the
# reparametrisation trick to a trained VAE, a conditional one, tighter bounds (IWAE), a Gaussian
# decoder with its trap, and missing pixels. Everything runs on a laptop in a few minutes.
#
# Run it as a script (`python tutorials/01_vae.py`, pictures go to the folder `01_vae`) or cell by
# cell. `SMOKE=1` makes every training run short.

# %%
import os
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO

from pyro_deepgen import plots
from pyro_deepgen.datasets import digits, frey_faces
from pyro_deepgen.fit import fit
from pyro_deepgen.infer import ImportanceWeightedELBO, MeanFieldELBO
from pyro_deepgen.latent import GaussianLikelihood, conditional_vae, vae
from pyro_deepgen.metrics import (
    LikelihoodFigure,
    active_units,
    log_likelihood,
    naive_log_likelihood,
)

SMOKE = os.environ.get("SMOKE") == "1"
PICTURES = Path("01_vae")
PICTURES.mkdir(exist_ok=True)


def epochs(number):
    """Few epochs in short mode."""
    return 2 if SMOKE else number


def show(figure, name):
    """Keep a picture, and show it in a notebook."""
    figure.savefig(PICTURES / f"{name}.png", dpi=100)
    return figure


pyro.set_rng_seed(0)

# %% [markdown]
# ## 1. One gradient, two ways
#
# Variational inference needs the gradient of an expectation over a distribution that we are
# changing: $\nabla_\mu \, \mathbb E_{z \sim N(\mu, 1)}[f(z)]$. The score function gives
# $f(z) \, \nabla_\mu \log q(z)$. If instead we write $z = \mu + \epsilon$ with
# $\epsilon \sim N(0, 1)$, the expectation no longer depends on $\mu$, and the gradient moves
# inside: $f'(\mu + \epsilon)$. Both are right on average. Look at their spread for $f(z) = z^2$ at
# $\mu = 2$, where the true gradient is 4:

# %%
mu = torch.tensor(2.0)
z = mu + torch.randn(10_000)
score_function = z**2 * (z - mu)
pathwise = 2 * z
for name, gradient in [("score function", score_function), ("reparametrised", pathwise)]:
    print(f"{name:15} mean {gradient.mean():5.2f}   standard deviation {gradient.std():5.2f}")

# %% [markdown]
# The second is what makes VAEs trainable. Pyro does it for every distribution with `rsample`,
# without being asked.
#
# ## 2. A VAE is a model and a guide
#
# The model draws a latent code and decodes it; the guide encodes an image:
#
# $$ z \sim N(0, I), \quad x \mid z \sim \mathrm{Bernoulli}(\mathrm{decoder}(z)) \qquad
#    q(z \mid x) = N(\mathrm{encoder}(x)). $$
#
# `vae` makes both, with fully connected networks. `pair.model` and `pair.guide` are modules, and
# their sites are called `z` and `x`, in the plate `data`. The images are scikit-learn's digits,
# 8 x 8 pixels, made black and white at one half. Say so whenever you quote a likelihood: another
# binarisation is another data set.

# %%
data = digits("threshold")
print(data)
pair = vae((1, 8, 8), latent_dim=10, hidden_dims=(128, 128))

trace = pyro.poutine.trace(pair.model).get_trace(data.x_train[:5])
trace.compute_log_prob()
print(trace.format_shapes())

# %% [markdown]
# It is an ordinary Pyro program, so plain SVI trains it:

# %%
svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 2e-3}), Trace_ELBO())
for epoch in range(epochs(60)):
    order = torch.randperm(len(data.x_train))
    loss = sum(svi.step(data.x_train[batch]) for batch in order.split(64))
    if epoch % 20 == 0:
        print(f"epoch {epoch:3}   ELBO {-loss / len(order):7.2f} nats a digit")

# %% [markdown]
# ## 3. What it learned
#
# `reconstruct` encodes and decodes; `sample` decodes draws of the prior. Beside the samples stand
# their nearest training digits: if the samples were copies, this is where you would see it.

# %%
show(
    plots.reconstructions(data.x_test[:10], pair.reconstruct(data.x_test[:10])),
    "reconstructions",
)

# %%
samples = pair.sample(6, mean=True)
show(plots.nearest_neighbors(samples, data.x_train), "nearest_neighbors")

# %% [markdown]
# Not every latent dimension carries something. A dimension whose posterior is the prior for every
# image is *inactive*; we count those whose posterior mean varies over the data. Then we move along
# the most active ones, one at a time, from the code of one test digit.

# %%
units = active_units(pair.guide, data.x_test)
print(f"{units.num_active} of {pair.latent_dim} dimensions are active")
dims = units.variance.argsort(descending=True)[:4].tolist()
values = torch.linspace(-2.5, 2.5, 9)
with torch.no_grad():
    codes = plots.traversal_codes(pair.encode(data.x_test[0]).mean, values, dims)
    travelled = pair.decode(codes).mean
show(plots.traversal(travelled, values, dims), "traversal")

# %% [markdown]
# Since it is a Pyro model, `Predictive` works, with the guide or without:

# %%
draws = Predictive(pair.model, num_samples=4)()
print({name: tuple(value.shape) for name, value in draws.items()})

# %% [markdown]
# ## 4. The training loop
#
# `fit` trains any objective: an ELBO of Pyro, or one of ours, applied to model and guide. It brings
# a progress bar, held-out evaluation, early stopping, several processes, and checkpoints from which
# a killed run resumes exactly. `MeanFieldELBO` uses the closed form of the Kullback-Leibler term.

# %%
flat = vae((1, 8, 8), latent_dim=2, hidden_dims=(128, 128))
loss = MeanFieldELBO()(flat.model, flat.guide)
history = fit(
    loss,
    data.x_train,
    torch.optim.Adam(loss.parameters(), 2e-3),
    num_epochs=epochs(100),
    batch_size=64,
    held_out=data.x_test,
    checkpoint=PICTURES / "flat.ckpt",
    progress=False,
)
show(plots.history(history), "history")

# %% [markdown]
# Run the cells again with more epochs, and it goes on from `flat.ckpt`; delete the file to start
# anew. With two latent dimensions we can
# look at the whole code: where each test digit lies, and what each place decodes to (equal steps of
# prior probability, as in figure 4 of Kingma and Welling).

# %%
with torch.no_grad():
    places = flat.encode(data.x_test).mean
show(plots.latent_map(places, data.y_test), "latent_map")

# %%
with torch.no_grad():
    grid, positions = plots.manifold_codes(12)
    decoded = flat.decode(grid).mean
show(plots.manifold(decoded, positions), "manifold")

# %% [markdown]
# How many latent dimensions does it take? Samples of pairs that differ in nothing else:

# %%
grids = {}
for size in (1, 2, 5, 10):
    sized = vae((1, 8, 8), latent_dim=size, hidden_dims=(128, 128))
    loss = MeanFieldELBO()(sized.model, sized.guide)
    optimizer = torch.optim.Adam(loss.parameters(), 2e-3)
    fit(loss, data.x_train, optimizer, num_epochs=epochs(60), batch_size=64, progress=False)
    grids[size] = sized.sample(36, mean=True)
show(plots.latent_sizes(grids), "latent_sizes")

# %% [markdown]
# ## 5. Telling it the class
#
# A conditional VAE takes `y` as an argument: `model(x, y)` and `guide(x, y)`. The code no longer
# has to say *which* digit it is, only how it is written. Each row below is one class.

# %%
y_train = torch.nn.functional.one_hot(data.y_train, 10).float()
conditional = conditional_vae((1, 8, 8), latent_dim=4, context_dim=10, hidden_dims=(128, 128))
loss = MeanFieldELBO()(conditional.model, conditional.guide)
optimizer = torch.optim.Adam(loss.parameters(), 2e-3)
fit(loss, (data.x_train, y_train), optimizer, num_epochs=epochs(60), batch_size=64, progress=False)

classes = torch.eye(10).repeat_interleave(8, dim=0)
written = conditional.sample(80, classes, mean=True)
names = [str(c) for c in range(10)]
show(plots.image_grid(written, ncols=8, title="Eight draws a class", row_labels=names), "classes")

# %% [markdown]
# ## 6. Better bounds: IWAE
#
# The ELBO is the $K = 1$ case of
#
# $$ \mathcal L_K = \mathbb E \Big[ \log \frac1K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k | x)} \Big]
#    \;\le\; \log p(x), $$
#
# which rises with $K$. For a trained pair it measures the likelihood; for training, it lets the
# true posterior be less like a Gaussian. First the measurement, of the pair of section 2:

# %%
scale = f"{data.name}, {data.protocol}"
for k in (1, 50, 5000):
    bound = log_likelihood(pair.model, pair.guide, data.x_test, num_particles=k)
    print(f"K = {k:4}   {LikelihoodFigure.nats(bound, scale)}")

# %% [markdown]
# Now the training. The plain gradient (`"iwae"`) of the encoder drowns in noise as $K$ grows; the
# doubly reparametrised one (`"dreg"`) does not. Both are right on average. The popular third way,
# `"stl"`, is right for $K = 1$ only.
#
# We train both objectives for the same number of steps, then compare them image by image: the
# difference has a much smaller standard error than either figure.

# %%
test = {}
for name, objective in [
    ("VAE", ImportanceWeightedELBO(1)),
    ("IWAE, K = 20", ImportanceWeightedELBO(20, "dreg")),
]:
    pyro.set_rng_seed(1)
    contestant = vae((1, 8, 8), latent_dim=10, hidden_dims=(128, 128))
    loss = objective(contestant.model, contestant.guide)
    optimizer = torch.optim.Adam(loss.parameters(), 1e-3)
    fit(loss, data.x_train, optimizer, num_epochs=epochs(60), batch_size=64, progress=False)
    test[name] = log_likelihood(
        contestant.model, contestant.guide, data.x_test, num_particles=50 if SMOKE else 2000
    )
    count = active_units(contestant.guide, data.x_test).num_active
    print(f"{name:13} {LikelihoodFigure.nats(test[name], scale)}, {count} active dimensions")
gap = test["IWAE, K = 20"] - test["VAE"]
print(f"IWAE minus VAE: {gap.mean():+.3f} +- {gap.std() / len(gap) ** 0.5:.3f} nats")

# %% [markdown]
# A warning about the estimate that looks simplest: average $p(x | z)$ over draws of the *prior*.
# With several active dimensions few such draws explain a given digit, and the figure falls short of
# the one above for the same images, here with the same number of draws and the last pair trained:

# %%
naive = naive_log_likelihood(contestant.model, data.x_test, num_particles=50 if SMOKE else 2000)
gap = naive - test["IWAE, K = 20"]
print(f"draws of the prior minus draws of the guide: {gap.mean():+.2f} nats")

# %% [markdown]
# ## 7. A Gaussian decoder, and its trap
#
# For grey images a Gaussian likelihood seems natural, with a variance that is learned too. But a
# pixel that never changes can be predicted perfectly, its variance can go to 0, and its density to
# infinity: the likelihood then measures the background. So our likelihood has a floor, and tells
# you when the floor, not the data, sets the figure. `digits` has such pixels in its corners:

# %%
grey = digits("gray")
tight = GaussianLikelihood("decoded", floor=0.01)
trapped = vae((1, 8, 8), latent_dim=4, hidden_dims=(128,), likelihood=tight)
loss = MeanFieldELBO()(trapped.model, trapped.guide)
optimizer = torch.optim.Adam(loss.parameters(), 5e-3)
for _ in range(epochs(60)):
    for batch in grey.x_train[torch.randperm(len(grey.x_train))].split(64):
        optimizer.zero_grad()
        (loss(batch) / len(batch)).backward()
        torch.nn.utils.clip_grad_norm_(loss.parameters(), 10.0)
        optimizer.step()
print(tight.report())

# %% [markdown]
# (`fit` shows this as a warning.) One shared variance does not fall into the trap, since no
# background pixel has a variance of its own. With it we learn the manifold of Frey faces, 1,965
# frames of one man's face, which you find in `frey_faces.npz` if `PYRO_DEEPGEN_DATA` names a folder
# that has it; without it, the digits take their place.

# %%
try:
    faces = frey_faces()
except FileNotFoundError as error:
    print(f"{error}\nUsing the digits instead.")
    faces = grey
shape = tuple(faces.x_train.shape[1:])
likelihood = GaussianLikelihood("shared", scale=0.3, floor=1 / 255)
portrait = vae(shape, latent_dim=2, hidden_dims=(200,), likelihood=likelihood)
loss = MeanFieldELBO()(portrait.model, portrait.guide)
optimizer = torch.optim.Adam(loss.parameters(), 1e-3)
fit(loss, faces.x_train, optimizer, num_epochs=epochs(150), batch_size=64, progress=False)
with torch.no_grad():
    grid, positions = plots.manifold_codes(10)
    decoded = portrait.decode(grid).mean
figure = LikelihoodFigure.nats(
    log_likelihood(portrait.model, portrait.guide, faces.x_test, num_particles=100),
    str(faces.scale),
)
print(f"test log-density {figure}")
show(plots.manifold(decoded, positions, f"The manifold of {faces.name}"), "faces")

# %% [markdown]
# The log-density is positive: it is a density of intensities in [0, 1], not a probability. In units
# of grey levels it is lower by $D \log 255$. A figure without its scale means nothing, so
# `LikelihoodFigure` will not print one.
#
# ## 8. Missing pixels
#
# Half of each digit is hidden. `impute` draws the hidden half given the other: it proposes codes
# from the guide, accepts or rejects them by the exact ratio, and redraws the hidden pixels. In the
# limit this is the model's conditional distribution; skipping the accept step would not be.

# %%
x = data.x_test[:8]
seen = torch.zeros(1, 8, 8, dtype=torch.bool)
seen[:, :4] = True
chains = pair.impute(x.expand(4, *x.shape), seen, num_steps=20 if SMOKE else 500)
rows = torch.cat([x, x * seen, *chains])
labels = ["digit", "seen", *(f"draw {i + 1}" for i in range(4))]
show(plots.image_grid(rows, ncols=8, title="The lower half imputed", row_labels=labels), "imputed")

# %% [markdown]
# ## Where to go from here
#
# Any part can be replaced by argument: `vae(..., prior=...)` takes any Pyro distribution over the
# latents, `likelihood=` any family, and `VAE(encoder, decoder, ...)` your own networks, such as
# `pyro_deepgen.nn.ConvEncoder` and `ConvDecoder`. For a few labels among many images there is
# `semi_supervised_vae`, for several stochastic layers `hierarchical_vae`. A prior with five modes:

# %%
mixture = dist.MixtureSameFamily(
    dist.Categorical(torch.ones(5)),
    dist.Normal(3 * torch.randn(5, 2), torch.ones(5, 2)).to_event(1),
)
print(vae((1, 8, 8), latent_dim=2, prior=mixture).sample(3).shape)
