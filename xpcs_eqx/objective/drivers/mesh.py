"""Sums over several devices: data in memory are shared out, data in a file are dealt out.

Maps in memory become a stack of tiles, `PackedMaps`, which devices can share among themselves.
"""

from typing import Any, ClassVar, TypeVar

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from ...compiling import zeros_like
from ...errors import ConfigError, ModelError
from ..kernel.blocks import Block
from ..kernel.tiles import AbstractTiles, MapTiles, tile_frames
from .loops import (
    AbstractDriver,
    AbstractPieces,
    add_parts,
    add_piece,
    each_piece,
    pieces_of,
    refuse_tracers,
    scan_tiles,
)
from .stored import StoredTiles

AXIS = "device"
T = TypeVar("T")


def chosen_devices(count: int | None, platform: str | None) -> list[Any]:
    """The first `count` devices of this process, or all; `platform` as in `jax.devices`.

    **Raises:** `ConfigError` when there are not so many, or none of that platform.
    """
    try:
        found = jax.local_devices(backend=platform)
    except RuntimeError as error:
        raise ConfigError(f"platform {platform!r}: JAX finds no such devices ({error})") from error
    if count is not None and not 1 <= count <= len(found):
        raise ConfigError(
            f"{count} devices were asked for, JAX finds {len(found)} ({found[0].platform}); on a "
            "processor XLA_FLAGS=--xla_force_host_platform_device_count=N makes N of it"
        )
    return found[:count]


def _arrays(tree: T) -> tuple[T, T]:
    return eqx.partition(tree, eqx.is_array)


def _filled(tiles: AbstractTiles, count: int) -> AbstractTiles:
    """The stack with empty tiles at its end, so that `count` devices get equal shares."""

    def fill(array):
        missing = -array.shape[0] % count
        # Zeros are tiles of weight zero.
        xp = np if isinstance(array, np.ndarray) else jnp
        return xp.pad(array, ((0, missing), *[(0, 0)] * (array.ndim - 1))) if missing else array

    arrays, rest = _arrays(tiles)
    return eqx.combine(jax.tree.map(fill, arrays), rest)


@eqx.filter_jit
def _sum_on(mesh, function, args, tiles, zero):
    """Each device scans its share, then all add up. What is not cut is the same on all devices."""
    stack = pack_maps(tiles) if isinstance(tiles, MapTiles) else tiles
    stack, stack_rest = _arrays(_filled(stack, mesh.size))
    whole, whole_rest = _arrays((args, zero))

    def share(stack, whole):
        tiles, (args, zero) = eqx.combine(stack, stack_rest), eqx.combine(whole, whole_rest)
        total = scan_tiles(function, args, tiles, jax.tree.map(jnp.zeros_like, zero))
        return jax.tree.map(jnp.add, zero, jax.lax.psum(total, AXIS))

    # Without the check, which a loop inside a user's model would not pass.
    return jax.shard_map(share, mesh=mesh, in_specs=(P(AXIS), P()), out_specs=P(), check_vma=False)(
        stack, whole
    )


class DeviceMesh(AbstractDriver):
    """Data in memory shared out over devices: each scans its tiles, and their sums are added.

    The upper triangle of maps is cut into tiles once, when the objective is built, and every
    device holds its share of them only. The fit itself, a matter of small matrices, is repeated on
    all devices; error bars of maps are formed on one of them, to which the maps are then copied.
    For data in a file there is `DeviceLoop`.

    - `count`: number of devices, the first ones; `None` for all of this process.
    - `platform`: `"cpu"`, `"gpu"`, `"tpu"`; `None` for JAX's default.

    **Raises:** `ConfigError` when an objective is built for more devices than there are;
    `ModelError` for data that are not in memory.
    """

    traceable: ClassVar[bool] = True
    count: int | None = eqx.field(static=True, default=None)
    platform: str | None = eqx.field(static=True, default=None)

    @property
    def mesh(self) -> Mesh:
        """The devices as a mesh with one axis."""
        return Mesh(np.array(chosen_devices(self.count, self.platform)), (AXIS,))

    def place(self, tiles, small):
        if isinstance(tiles, AbstractPieces):
            raise ModelError(
                "DeviceMesh holds all data in the memory of its devices, but these are read piece "
                "by piece; take DeviceLoop, or load the data"
            )
        mesh = self.mesh
        stack = pack_maps(tiles) if isinstance(tiles, MapTiles) else tiles
        arrays, rest = _arrays(_filled(jax.tree.map(np.asarray, stack), mesh.size))
        stack = eqx.combine(jax.device_put(arrays, NamedSharding(mesh, P(AXIS))), rest)
        # With one array on all devices the solver's state is there from its first step on, and
        # nothing is compiled for two places.
        return stack, jax.device_put(small, NamedSharding(mesh, P()))

    def sum(self, function, args, tiles, zero):
        return _sum_on(self.mesh, function, args, tiles, zero)


class DeviceLoop(AbstractDriver):
    """Data in a file dealt out over devices: each piece goes to the next device in turn.

    A device adds up its pieces while the others get theirs; memory is that of one piece a device,
    and of those being read. Sums are added in the order of the devices.

    - `count`, `platform`: as of `DeviceMesh`; `ahead`: pieces read on a thread.

    **Raises:** `ConfigError` when there are fewer devices; `ModelError` inside `jit` or `grad`.
    """

    traceable: ClassVar[bool] = False
    count: int | None = eqx.field(static=True, default=None)
    platform: str | None = eqx.field(static=True, default=None)
    ahead: int = eqx.field(static=True, default=2)

    def sum(self, function, args, tiles, zero):
        refuse_tracers(args)
        source, devices = pieces_of(tiles), chosen_devices(self.count, self.platform)
        places = [to_device(args, device) for device in devices]
        nothing = zeros_like(zero)
        totals = [to_device(nothing, device) for device in devices]
        for k, piece in enumerate(each_piece(source, ahead=self.ahead)):
            turn = k % len(devices)
            # One piece at a time on a device: a queue of unfinished sums would keep its pieces.
            jax.block_until_ready(totals[turn])
            there = to_device(piece, devices[turn])
            totals[turn] = add_piece(function, places[turn], totals[turn], there)
        return add_parts(zero, map(jax.device_get, totals))


def to_device(tree: T, device: Any) -> T:
    """A tree with its arrays on a device."""
    arrays, rest = _arrays(tree)
    return eqx.combine(jax.device_put(arrays, device), rest)


def on_one_device(tree: T) -> T:
    """The same with arrays that lie on several devices on the default one, and maps as maps.

    What is being traced stays as it is.
    """

    def packed(node):
        return isinstance(node, PackedMaps)

    def moved(node):
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(node)):
            return node
        if packed(node):
            return unpack_maps(node)
        several = isinstance(node, jax.Array) and len(node.devices()) > 1
        return jnp.asarray(np.asarray(node)) if several else node

    return jax.tree.map(moved, tree, is_leaf=packed)


class PackedMaps(AbstractTiles):
    """The tiles of the upper triangle of square maps, copied into one stack.

    Every array has the tile as its leading axis, so that the stack can be cut anywhere.

    - `values`, `root_weights`: as of `MapTiles`, tile by tile.
    - `places`: angle, tile row and tile column.
    - `root_tile_weights`: of the angle of each tile; 0 for tiles that only fill up the stack.
    - `shape`: number of angles and of frames.
    """

    values: Float[Array, "tile size size"]
    root_weights: Float[Array, "tile size size"] | None
    places: Int[Array, "tile 3"]
    root_tile_weights: Float[Array, "tile"]
    shape: tuple[int, int] = eqx.field(static=True)

    @property
    def table(self):
        return np.arange(self.values.shape[0], dtype=np.int32)[:, None]

    def block(self, row):
        k, size, dtype = row[0], self.values.shape[1], self.root_tile_weights.dtype
        angle, i, j = self.places[k]
        _, _, first, second, valid = tile_frames(i, j, self.shape[1], size)
        weight = self.root_tile_weights[k]
        if self.root_weights is not None:
            weight = weight * self.root_weights[k].astype(dtype)
        return Block(
            first, second, angle, self.values[k].astype(dtype), jnp.where(valid, weight, 0.0)
        )


def forms_maps(tiles: Any) -> bool:
    """Whether tiles are of whole maps, in memory, on several devices or in a file."""
    return isinstance(tiles, MapTiles | PackedMaps | StoredTiles)


def pack_maps(tiles: MapTiles) -> PackedMaps:
    """The same data as a stack of tiles; works under `jit`."""
    n_angles, n, _ = tiles.c2.shape
    size, places = tiles.size, tiles.table
    start = np.minimum(places[:, 1:] * size, n - size)

    def cut(stack):
        if not isinstance(stack, jax.core.Tracer):
            whole = np.asarray(stack)
            corners = zip(places[:, 0], start, strict=True)
            return np.stack([whole[a, i : i + size, j : j + size] for a, (i, j) in corners])
        return jax.vmap(
            lambda a, i, j: jax.lax.dynamic_slice(stack, (a, i, j), (1, size, size))[0]
        )(jnp.asarray(places[:, 0]), *jnp.asarray(start.T))

    roots = None if tiles.root_weights is None else cut(tiles.root_weights)
    by_tile = tiles.root_angle_weights[places[:, 0]]
    return PackedMaps(cut(tiles.c2), roots, places, by_tile, (n_angles, n))  # pyright: ignore[reportArgumentType]


def unpack_maps(tiles: PackedMaps) -> MapTiles:
    """The maps of a stack, symmetric, on the default device."""
    n_angles, n = tiles.shape
    size = tiles.values.shape[1]
    blocks = -(-n // size)
    # What follows only fills up the stack.
    count = n_angles * (blocks * (blocks + 1) // 2)
    places = np.asarray(tiles.places)[:count]
    roots = np.asarray(tiles.root_tile_weights)[:count]
    by_angle = np.zeros(n_angles)
    np.maximum.at(by_angle, places[:, 0], roots)

    def whole(stack: Any) -> Array:
        parts = np.asarray(stack)[:count]
        maps = np.zeros((n_angles, n, n), parts.dtype)
        corners = np.minimum(places[:, 1:] * size, n - size)
        for part, a, (i, j) in zip(parts, places[:, 0], corners, strict=True):
            maps[a, i : i + size, j : j + size] = part
        upper = np.triu(maps)
        return jnp.asarray(upper + np.swapaxes(np.triu(maps, 1), 1, 2))

    weights = None if tiles.root_weights is None else whole(tiles.root_weights)
    return MapTiles(whole(tiles.values), weights, jnp.asarray(by_angle), size)
