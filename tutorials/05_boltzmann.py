# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

# %% [markdown]
# # Boltzmann machines as Pyro distributions
#
# A Boltzmann machine says how much it likes a state by an energy, and leaves the sum over all
# states, the normalising constant $Z$, to whoever can afford it. In `pyro_deepgen.energy` such a
# machine is a Pyro distribution all the same: it is observed in a plate, it learns by `SVI` with an
# empty guide, and it can be a prior. This tutorial starts with two coupled coins, trains a
# restricted machine (RBM) on small pictures and on digits, estimates $\log Z$ with an error bar,
# fills in missing halves, builds a deep machine layer by layer, and ends with an RBM as the prior
# of a VAE.
#
# Run it as a script (`python tutorials/05_boltzmann.py`, pictures go to the folder `05_boltzmann`)
# or cell by cell. `SMOKE=1` makes every run short.

# %%
import math
import os
from pathlib import Path

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from sklearn.datasets import load_digits
from torch import nn

from pyro_deepgen.energy import (
    RBM,
    BinaryUnits,
    BoltzmannMachine,
    DeepBoltzmannMachine,
    PersistentChains,
)
from pyro_deepgen.fit import fit_stages
from pyro_deepgen.latent import VAE
from pyro_deepgen.plots import image_grid

SMOKE = os.environ.get("SMOKE") == "1"
PICTURES = Path("05_boltzmann")
PICTURES.mkdir(exist_ok=True)
COMPILE = "recorded" if SMOKE else True


def short(number, few):
    """A smaller number in short mode."""
    return few if SMOKE else number


torch.set_num_threads(1)
pyro.set_rng_seed(0)

# %% [markdown]
# ## 1. Two coupled coins
#
# Two coins show 0 or 1. With biases $b_1, b_2$ and a coupling $w$ the energy of a state is
#
# $$E(x) = -b_1 x_1 - b_2 x_2 - w\, x_1 x_2, \qquad p(x) = \exp(-E(x) / T) / Z .$$
#
# The coins below lean to 0 by themselves, and want to agree on 1. Four states are easily summed, so
# the machine is normalised exactly, and a draw is exact too.

# %%
coins = BoltzmannMachine(2)
with torch.no_grad():
    coins.unit_bias.fill_(-1.0)
    coins.weight.fill_(3.0)
coins.eval()
states = BinaryUnits(2).states(torch.zeros(()))
draws = coins.sample((4000,))
print("state   energy   probability   share of 4,000 draws")
for state in states:
    share = (draws == state).all(-1).float().mean()
    print(
        f"{state.int().tolist()}   {coins.energy(state) + 0:5.1f}   "
        f"{coins.log_prob(state).exp():11.3f}   {share:8.3f}"
    )

# %% [markdown]
# The temperature says how much energies matter. In heat all states are alike; in the cold only the
# best one is left, here that of two ones.

# %%
temperatures = torch.logspace(-1, 1.5, 40)
curves = []
for temperature in temperatures:
    warm = BoltzmannMachine(2, temperature=float(temperature))
    warm.load_state_dict(coins.state_dict())
    curves.append(warm.eval().log_prob(states).exp().detach())
figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
for state, curve in zip(states, torch.stack(curves).T, strict=True):
    style = "--" if state.tolist() == [1.0, 0.0] else "-"  # lies on that of (0, 1)
    axis.semilogx(temperatures, curve, style, label=str(tuple(state.int().tolist())))
axis.set(xlabel="temperature", ylabel="probability", title="Two coupled coins")
axis.legend()
figure.savefig(PICTURES / "coins.png", dpi=120)

# %% [markdown]
# ## 2. An RBM learns by SVI
#
# In a restricted machine visible units $v$ are coupled to hidden units $h$ only, so that the hidden
# ones sum out: `RBM(V, H)` is a distribution of $v$. The gradient of $\log p(v)$ has two parts,
#
# $$-\nabla E(v) + E_{v' \sim p}\,[\nabla E(v')] ,$$
#
# and the second one, the negative phase, needs draws of the machine itself. They come from Markov
# chains that the machine carries along (`PersistentChains`). In training mode `log_prob` has this
# gradient, so that plain `SVI` with an empty guide maximises the likelihood.
#
# The data are the 14 pictures of 3 x 3 pixels that consist of whole rows or whole columns. Nothing
# can do better on them than $-\log 14$ nats a picture.

# %%
side = 3
rows = BinaryUnits(side).states(torch.zeros(()))[:, :, None].expand(-1, side, side)
bars = torch.cat([rows.flatten(1), rows.mT.flatten(1)]).unique(dim=0)
rbm = RBM(9, 12, weight_scale=0.1, centred=True, negative_phase=PersistentChains(500, num_steps=10))


def model(x):
    """Pictures, each a draw of the machine."""
    pyro.module("rbm", rbm)
    with pyro.plate("pictures", len(x)):
        pyro.sample("v", rbm, obs=x)


def empty_guide(x):
    """Nothing is hidden: the machine sums its hidden units out."""


NUM_STEPS = short(2000, 30)
decay = (0.001 / 0.05) ** (1 / NUM_STEPS)
svi = SVI(model, empty_guide, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": decay}), Trace_ELBO())
trace = []
for step in range(NUM_STEPS):
    svi.step(bars)
    if step % max(1, NUM_STEPS // 20) == 0:
        with torch.no_grad():
            trace.append((step, float(rbm.eval().log_prob(bars).mean())))
        rbm.train()
rbm.eval()
print(f"after {NUM_STEPS} steps: {rbm.log_prob(bars).mean():.3f} nats a picture", end="; ")
print(f"the best possible is {-math.log(len(bars)):.3f}")
share = (rbm.sample((2000,))[:, None] == bars).all(-1).any(-1).float().mean()
print(f"{share:.1%} of the machine's draws are one of the 14 pictures")

# %% [markdown]
# Two things to watch. The loss that `SVI` gives in training leaves $\log Z$ out, so it says little:
# look at `log_prob` in evaluation mode, as here, or at an estimate of $\log Z$ now and then. And
# chains lag behind the parameters: with too high a rate, or too few Gibbs steps between updates,
# they no longer are draws of the machine, and learning oscillates or diverges. The rate above falls
# from 0.05 to 0.001.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
axes[0].plot(*zip(*trace, strict=True))
axes[0].axhline(-math.log(len(bars)), color="grey", linestyle=":", label="entropy of the data")
axes[0].set(xlabel="step", ylabel="mean log-probability (nats)", title="Bars and stripes")
axes[0].legend()
weights = rbm.weight.detach().T.reshape(-1, side, side)
padded = torch.full((12, side + 1, side + 1), math.nan)
padded[:, :side, :side] = weights
tiles = padded.reshape(2, 6, side + 1, side + 1).transpose(1, 2).reshape(2 * (side + 1), -1)
limit = float(weights.abs().max())
picture = axes[1].imshow(tiles, cmap="RdBu_r", vmin=-limit, vmax=limit)
axes[1].set(title="Weights of the 12 hidden units", xticks=[], yticks=[])
figure.colorbar(picture, ax=axes[1], shrink=0.7)
figure.savefig(PICTURES / "bars.png", dpi=120)

# %% [markdown]
# ## 3. Digits, and log Z with an error bar
#
# Now 1,797 digits of 8 x 8 pixels, white where the grey level is above one half.
# With 64 hidden units, $2^{64}$ states cannot be summed. Annealed importance sampling goes from
# independent units to the machine in many small steps, and says how far it can be trusted:
# `estimate_log_partition` gives the estimate, its standard error, and a lower and an upper value.
# The upper one comes from chains that walk the path backwards. It would be a bound if they started
# from exact draws; here they start from long Markov chains, so it is a plausibility check.

# %%
digits = torch.as_tensor(load_digits().images, dtype=torch.float32).flatten(1) / 16
order = torch.randperm(len(digits))
digits = (digits[order] > 0.5).float()
train, test = digits[:1500], digits[1500:]
mean = train.mean(0).clamp(0.01, 0.99)

machine = RBM(64, 64, centred=True, negative_phase=PersistentChains(200, num_steps=2))
with torch.no_grad():
    machine.visible_bias.copy_(mean.logit())  # units without hidden ones have the data's means


def digit_model(x):
    """Digits, each a draw of the machine."""
    pyro.module("machine", machine)
    with pyro.plate("digits", len(x)):
        pyro.sample("v", machine, obs=x)


NUM_EPOCHS = short(60, 1)
decay = 0.05 ** (1 / (NUM_EPOCHS * 15))
svi = SVI(
    digit_model, empty_guide, pyro.optim.ClippedAdam({"lr": 0.01, "lrd": decay}), Trace_ELBO()
)
for _ in range(NUM_EPOCHS):
    for batch in train[torch.randperm(len(train))].split(100):
        svi.step(batch)
machine.eval()
NUM_CHAINS = short(500, 20)
found = machine.estimate_log_partition(
    num_chains=NUM_CHAINS,
    num_steps=short(1000, 50),
    reverse_from=machine.sample((NUM_CHAINS,)),
    compile=COMPILE,
)
print(
    f"log Z = {found.value:.2f} +- {found.standard_error:.2f}, "
    f"between {found.lower:.2f} and {found.upper:.2f}"
)
independent = dist.Bernoulli(mean).to_event(1).log_prob(test).mean()
print(f"test digits: {machine.log_prob(test).mean():.2f} nats by the machine", end=", ")
print(f"{independent:.2f} by independent pixels")

# %% [markdown]
# After the estimate, `log_prob` is normalised by it until the parameters change; without one it
# would raise an error rather than give a number that is no log-probability. The filters show which
# strokes a hidden unit looks for. The chains below start at test digits (left) and take 1, 10, 100
# and 1,000 Gibbs steps: they keep the look of digits and forget which one they were.

# %%
filters = machine.weight.detach().T.reshape(-1, 8, 8)
filters = (filters / filters.abs().amax((1, 2), keepdim=True) + 1) / 2
figure = image_grid(filters[:32], ncols=16, title="What 32 hidden units look for")
figure.savefig(PICTURES / "filters.png", dpi=120)
figure

# %%
with torch.no_grad():
    chains, at = [test[:8]], test[:8]
    for steps in (1, 9, 90, short(900, 9)):
        at = machine.transition(at, steps)
        chains.append(at)
figure = image_grid(
    torch.stack(chains).reshape(-1, 8, 8),
    ncols=8,
    title="Gibbs sampling from test digits",
    row_labels=["start", "1 step", "10", "100", "1,000"],
)
figure.savefig(PICTURES / "chains.png", dpi=120)
figure

# %% [markdown]
# ## 4. Filling in
#
# What is known stays, what is missing is drawn given it. `impute(x, mask)` does that for any part;
# `True` in the mask says known. Here the lower halves are hidden, and each row is another draw.

# %%
known = torch.zeros(8, 8, dtype=torch.bool)
known[:4] = True
half = torch.where(known, test[:8].reshape(-1, 8, 8), 0.5)
filled = [machine.impute(test[:8], known.flatten()).reshape(-1, 8, 8) for _ in range(3)]
figure = image_grid(
    torch.cat([test[:8].reshape(-1, 8, 8), half, *filled]),
    ncols=8,
    title="Lower halves, given the upper ones",
    row_labels=["digit", "seen", "draw 1", "draw 2", "draw 3"],
)
figure.savefig(PICTURES / "halves.png", dpi=120)
figure

# %% [markdown]
# ## 5. A deep machine
#
# A deep Boltzmann machine has layers of hidden units, each coupled to its neighbours. Its hidden
# units do not sum out any more: in training they are inferred by mean field, and `log_prob` is a
# bound, which `log_prob_is_bound` says. From small random weights such a machine rarely uses its
# second layer, so it is trained in stages first, one RBM on top of another with doubled weights
# (`stages()`), and as a whole then.

# %%
deep = DeepBoltzmannMachine(64, (64, 32), negative_phase=PersistentChains(200, num_steps=5))
fit_stages(
    deep.stages(),
    train,
    lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    num_epochs=short(20, 1),
    batch_size=100,
    progress=False,
)


def deep_model(x):
    """Digits, each a draw of the deep machine."""
    pyro.module("deep", deep)
    with pyro.plate("digits", len(x)):
        pyro.sample("v", deep, obs=x)


NUM_EPOCHS = short(40, 1)
decay = 0.05 ** (1 / (NUM_EPOCHS * 15))
svi = SVI(
    deep_model, empty_guide, pyro.optim.ClippedAdam({"lr": 0.003, "lrd": decay}), Trace_ELBO()
)
for _ in range(NUM_EPOCHS):
    for batch in train[torch.randperm(len(train))].split(100):
        svi.step(batch)
deep.eval()
found = deep.estimate_log_partition(
    num_chains=NUM_CHAINS, num_steps=short(1000, 50), compile=COMPILE
)
with torch.no_grad():
    bound = deep.log_prob(test).mean()
print(
    f"log Z = {found.value:.2f} +- {found.standard_error:.2f}; is a bound: {deep.log_prob_is_bound}"
)
print(f"test digits: at least {bound:.2f} nats by the deep machine")
figure = image_grid(
    deep.sample((24,)).reshape(-1, 8, 8), ncols=12, title="Draws of the deep machine"
)
figure.savefig(PICTURES / "deep.png", dpi=120)
figure

# %% [markdown]
# ## 6. An RBM as the prior of a VAE
#
# A machine is a distribution, so it can stand where a program has a prior. The VAE below has 16
# binary latent units with an RBM over them instead of independent coins: what goes together in the
# latent code is learned by the machine, and the decoder turns a code into a digit. The guide draws
# bits, whose gradient `Trace_ELBO` estimates from the log-probabilities.

# %%
prior = RBM(16, 16, negative_phase=PersistentChains(200, num_steps=2))
encoder = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 16))
decoder = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 64))


def coins_of(logits):
    """Independent bits."""
    return dist.Bernoulli(logits=logits).to_event(1)


pair = VAE(encoder, decoder, 16, prior=prior, posterior=coins_of)
NUM_EPOCHS = short(100, 1)
elbo = Trace_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1)
svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 0.003}), elbo)
for _ in range(NUM_EPOCHS):
    for batch in train[torch.randperm(len(train))].split(100):
        svi.step(batch)
pair.eval()
with torch.no_grad():
    loss = Trace_ELBO(num_particles=20, vectorize_particles=True, max_plate_nesting=1)
    print(f"test digits: ELBO {-loss.loss(pair.model, pair.guide, test) / len(test):.2f} nats")
    figure = image_grid(
        pair.sample(24).reshape(-1, 8, 8), ncols=12, title="Codes of the RBM, decoded"
    )
figure.savefig(PICTURES / "prior.png", dpi=120)
figure

# %% [markdown]
# In evaluation mode the prior of 16 units is normalised exactly, by the sum over its states, so
# this ELBO is one, and can be put beside the log-probabilities above. In training it was off by
# $\log Z$, and its gradient was right.
#
# What else there is: units of other kinds (`GaussianUnits`, `SoftmaxUnits`, `RectifiedUnits`),
# convolutional machines, a machine with labels that classifies (`DiscriminativeRBM`), any network
# as an energy (`NeuralEnergy`), and in `pyro_deepgen.infer` ways of learning that need no draws at
# all: score matching, noise-contrastive estimation, pseudo-likelihood and ratio matching.
