"""Effective samples a second of NUTS: this library, NumPyro on the same log density, homodyne.

    python benchmarks/sampling.py [--size 3x101] [--draws 1500] [--limit 600]
                                  [--numpyro-python PATH] [--homodyne-python PATH]

Laminar flow with individual scaling and unknown sigma. Each sampler runs in a process of its own;
seconds are those of its call: fit or adaptation, compilation and draws. The figure of merit is the
smallest bulk ESS over the parameters by second. The interpreter for NumPyro needs what this library
needs and NumPyro; it gets the same log density in the same coordinates and adapts by itself.
homodyne (2.23, Python 3.12 or later) samples its own model of the same maps. Every sampler is
reported as soon as it has ended, or has been stopped after `--limit` seconds. The last line is
JSON.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

from common import (
    NOISE,
    Q,
    machine,
    run_self,
    simulated,
    sizes,
    start_values,
    wait_until_quiet,
    write_data,
)

HERE = os.path.dirname(os.path.abspath(__file__))


def problem(path: str):
    """The objective of a file, from start values 40 % off."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from common import laminar

    import xpcs_eqx

    data = xpcs_eqx.load(path)
    parameters = xpcs_eqx.parameter_map(laminar(start_values()), data.t)
    return xpcs_eqx.projected_objective(parameters, data)


def merit(draws, names) -> dict:
    """Bulk ESS and R-hat of draws (chain, draw, entry), by BlackJAX-free rank statistics."""
    from xpcs_eqx.bayes.arviz_io import ess, rhat

    each = {n: draws[..., i] for i, n in enumerate(names)}
    sizes = {n: ess(d, "bulk") for n, d in each.items()}
    return {
        "ess": min(sizes.values()),
        "rhat": max(rhat(d) for d in each.values()),
        "worst": min(sizes, key=lambda n: sizes[n]),
        "means": {n: float(d.mean()) for n, d in each.items()},
        "sds": {n: float(d.std()) for n, d in each.items()},
    }


def ours(path: str, draws: int, treatment: str) -> dict:
    """This library with its defaults."""
    objective = problem(path)
    from xpcs_eqx.bayes import MarginalisedScaling, Nuts, SampledScaling, sample

    scaling = {"sampled": SampledScaling, "marginalised": MarginalisedScaling}[treatment]()
    began, cpu = time.perf_counter(), time.process_time()
    posterior = sample(objective, sampler=Nuts(draws=draws), scaling=scaling, key=1)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        **merit(posterior.theta, posterior.names),
        "seconds": seconds,
        "cpu": cpu,
        "steps": float(posterior.draws.steps.mean()),
        "divergences": posterior.diagnostics.divergence_rate,
        "phases": dict(posterior.timings),
    }


def numpyro_nuts(path: str, draws: int) -> dict:
    """NumPyro's NUTS with dense metric and its own adaptation on the same log density."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    objective = problem(path)
    from numpyro.infer import MCMC, NUTS

    from xpcs_eqx.bayes import log_posterior

    began, cpu = time.perf_counter(), time.process_time()
    density, theta = log_posterior(objective)
    z = density.coordinates.from_physical(jnp.asarray(theta))
    kernel = NUTS(potential_fn=lambda z: -density(z), dense_mass=True, target_accept_prob=0.9)
    mcmc = MCMC(
        kernel,
        num_warmup=500,
        num_samples=draws,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    starts = z + 0.1 * jax.random.normal(jax.random.key(0), (4, len(z)))
    mcmc.run(jax.random.key(1), init_params=starts, extra_fields=("diverging", "num_steps"))
    positions = jax.block_until_ready(mcmc.get_samples(group_by_chain=True))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    found = np.asarray(jax.vmap(jax.vmap(density.coordinates.to_physical))(positions))
    extra = mcmc.get_extra_fields()
    return {
        **merit(found, density.names),
        "seconds": seconds,
        "cpu": cpu,
        "steps": float(np.mean(extra["num_steps"])),
        "divergences": float(np.mean(extra["diverging"])),
    }


def limited(command: list[str], seconds: float) -> dict:
    """Run a program whose last line is JSON; after `seconds` it is ended with its workers.

    **Raises:** `TimeoutExpired` then, `RuntimeError` when the program fails.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as it:
        try:
            out, errors = it.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(it.pid, signal.SIGKILL)
            raise
    if it.returncode != 0:
        raise RuntimeError(errors[-3000:])
    return json.loads(out.strip().splitlines()[-1])


def has(python: str | None, module: str) -> bool:
    """Whether an interpreter can import a module."""
    if python is None:
        return False
    done = subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False)
    return done.returncode == 0


def homodyne_file(path: str, shape: tuple[int, int], seed: int) -> None:
    """The same maps as arrays for a program without this library."""
    import jax
    import numpy as np

    jax.config.update("jax_enable_x64", True)
    data = simulated(*shape, seed)
    np.savez(
        path,
        c2=np.asarray(data.c2),
        t=np.asarray(data.t),
        phi=np.asarray(data.geometry.phi),
        q=Q,
        gap=np.asarray(data.geometry.gap),
        noise=NOISE,
        start=json.dumps(start_values()),
    )


COLUMNS = ("ess", "rhat", "divergences", "steps", "seconds", "cpu", "ess_by_second",
           "ess_by_cpu_second")  # fmt: skip
HEADER = "{:30s}" + "".join(
    f"{title:>10s}"
    for title in ("ESS", "R-hat", "div.", "steps", "s", "cpu s", "ESS/s", "ESS/cpu s")
)


def line(name: str, one: dict) -> str:
    """One row of the table."""
    cells = ("–" if one.get(key) is None else f"{one[key]:.4g}" for key in COLUMNS)
    return f"{name:30s}" + "".join(f"{cell:>10s}" for cell in cells)


def ratios(samplers: dict) -> dict:
    """ESS by second of this library over that of the others, by wall and by processor time."""
    mine = samplers["xpcs_eqx, sampled scaling"]
    return {
        f"{name}, {key}": mine[key] / one[key]
        for name, one in samplers.items()
        for key in ("ess_by_second", "ess_by_cpu_second")
        if one is not mine and key in mine and one.get(key)
    }


def main() -> None:
    """Measure, print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="3x101", help="angles x frames")
    parser.add_argument("--draws", type=int, default=1500)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for each sampler")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("--quiet-below", type=float, help="wait until the load is below this")
    parser.add_argument("--numpyro-python", default=sys.executable, help="interpreter with NumPyro")
    parser.add_argument("--homodyne-python", help="an interpreter that has homodyne 2.x")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        kind, path, draws = given.child
        shape = sizes(given.size)[0]
        if kind == "write":
            write_data(path, *shape, given.seed)
            print(json.dumps({"written": path}))
        elif kind == "maps":
            homodyne_file(path, shape, given.seed)
            print(json.dumps({"written": path}))
        elif kind == "numpyro":
            print(json.dumps(numpyro_nuts(path, int(draws))))
        else:
            print(json.dumps(ours(path, int(draws), kind)))
        return
    script = os.path.abspath(__file__)
    common = ("--size", given.size, "--seed", str(given.seed), "--child")
    report = {"benchmark": "sampling", "size": given.size, **machine(), "samplers": {}}
    with tempfile.TemporaryDirectory() as folder:
        path, maps = os.path.join(folder, "data.h5"), os.path.join(folder, "maps.npz")
        run_self(script, *common, "write", path, 0)
        commands = {
            f"xpcs_eqx, {kind} scaling": [sys.executable, script, *common, kind, path]
            for kind in ("sampled", "marginalised")
        }
        if has(given.numpyro_python, "numpyro"):
            commands["NumPyro NUTS, same density"] = [
                given.numpyro_python, script, *common, "numpyro", path,
            ]  # fmt: skip
        else:
            print(f"NumPyro is not installed for {given.numpyro_python}: left out", flush=True)
        if has(given.homodyne_python, "homodyne"):
            run_self(script, *common, "maps", maps, 0)
            program = os.path.join(HERE, "sampling_homodyne.py")
            commands["homodyne CMC"] = [str(given.homodyne_python), program, maps]
        else:
            print("no interpreter with homodyne given (--homodyne-python): left out", flush=True)
        print(HEADER.format(""), flush=True)
        for name, command in commands.items():
            load = wait_until_quiet(given.quiet_below) if given.quiet_below else os.getloadavg()[0]
            try:
                one = limited([*command, str(given.draws)], given.limit)
                one["ess_by_second"] = one["ess"] / one["seconds"]
                one["ess_by_cpu_second"] = one["ess"] / one["cpu"]
                print(line(name, one), flush=True)
            except subprocess.TimeoutExpired:
                one = {"failed": f"not done after {given.limit:g} s"}
            except RuntimeError as error:
                one = {"failed": str(error)[-1500:]}
            if "failed" in one:
                print(f"{name}: {one['failed']}", flush=True)
            report["samplers"][name] = {**one, "machine_load": load}
    report["ratios"] = ratios(report["samplers"])
    print(json.dumps(report))


if __name__ == "__main__":
    main()
