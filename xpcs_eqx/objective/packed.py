"""Maps as a stack of tiles, which devices can share among themselves."""

from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .blocks import Block
from .tiles import AbstractTiles, MapTiles, tile_frames


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
