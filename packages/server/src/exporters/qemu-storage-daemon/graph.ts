/** The block nodes of a storage daemon that runs: a volume's, the layers laid over it since, and filters. */
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import type { NodeNames } from "./node-names.js";

const Names = v.array(v.object({ name: v.string() }));
const Nodes = v.array(
  v.object({
    "node-name": v.string(),
    backing_file: v.optional(v.string()),
    image: v.object({
      filename: v.string(),
      "virtual-size": v.number(),
      snapshots: v.optional(Names, []),
    }),
    "dirty-bitmaps": v.optional(Names, []),
  }),
);

export interface BlockNode {
  readonly name: string;
  /** As QEMU calls what it opened: a path, or a URI. */
  readonly filename: string;
  readonly sizeBytes: number;
  /** Whether there is a layer below it. */
  readonly hasBacking: boolean;
  /** Snapshots inside the image. */
  readonly inner: readonly string[];
  readonly bitmaps: readonly string[];
}

/** Reads the answer of `query-named-block-nodes`. @see QEMU, qapi/block-core.json */
export function nodesIn(answer: unknown): readonly BlockNode[] {
  return v.parse(Nodes, answer).map((one) => ({
    name: one["node-name"],
    filename: one.image.filename,
    sizeBytes: one.image["virtual-size"],
    hasBacking: one.backing_file !== undefined,
    inner: one.image.snapshots.map(({ name }) => name),
    bitmaps: one["dirty-bitmaps"].map(({ name }) => name),
  }));
}

/** The node that is written. One that was added and not laid over anything has nothing below it. */
export function topOf(nodes: readonly BlockNode[], names: NodeNames): BlockNode {
  const own = nodes.filter(({ name, hasBacking }) => {
    const number = names.numberOf(name);
    return number === 0 || (number > 0 && hasBacking);
  });
  const [top] = own.toSorted((a, b) => names.numberOf(b.name) - names.numberOf(a.name));
  if (top !== undefined) return top;
  throw new StorageError("internal", "the storage daemon has lost its volume");
}

/**
 * In the order in which they can be deleted: nothing leads to them any more, and each before what it leads to. What
 * was laid over the volume lies above it, and a file below the node that reads it.
 */
export function inClosingOrder(nodes: readonly string[], names: NodeNames): readonly string[] {
  const rank = (name: string): number => {
    if (names.isFilter(name)) return Number.NEGATIVE_INFINITY;
    const isFile = name.endsWith("-file");
    const number = names.numberOf(isFile ? name.slice(0, -"-file".length) : name);
    // Dead ends of filters have no number.
    return Number.isNaN(number) ? Number.MAX_SAFE_INTEGER : -2 * number + (isFile ? 1 : 0);
  };
  return nodes.toSorted((a, b) => rank(a) - rank(b));
}
