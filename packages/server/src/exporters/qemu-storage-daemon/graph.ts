/** The block nodes of a storage daemon that runs: the volume's, the layers laid over it since, and filters. */
import * as v from "valibot";
import { StorageError } from "@libstorage/model";

/** The volume as it was opened. */
export const NODE = "volume";

/** Layers that were laid over it while it was open. */
const LAYER_NODE = /^volume-(\d{1,6})$/;

const Names = v.array(v.object({ name: v.string() }));
const Nodes = v.array(
  v.object({
    "node-name": v.string(),
    backing_file: v.optional(v.string()),
    image: v.object({ "virtual-size": v.number(), snapshots: v.optional(Names, []) }),
    "dirty-bitmaps": v.optional(Names, []),
  }),
);

export interface BlockNode {
  readonly name: string;
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
    sizeBytes: one.image["virtual-size"],
    hasBacking: one.backing_file !== undefined,
    inner: one.image.snapshots.map(({ name }) => name),
    bitmaps: one["dirty-bitmaps"].map(({ name }) => name),
  }));
}

function numberOf(name: string): number {
  return name === NODE ? 0 : Number(LAYER_NODE.exec(name)?.[1] ?? Number.NaN);
}

/** The node that is written. One that was added and not laid over anything has nothing below it. */
export function topOf(nodes: readonly BlockNode[]): BlockNode {
  const own = nodes.filter(
    ({ name, hasBacking }) => name === NODE || (hasBacking && LAYER_NODE.test(name)),
  );
  const [top] = own.toSorted((a, b) => numberOf(b.name) - numberOf(a.name));
  if (top !== undefined) return top;
  throw new StorageError("internal", "the storage daemon has lost its volume");
}

/** The name of a layer over a node. */
export function nodeOver(name: string): string {
  return `${NODE}-${numberOf(name) + 1}`;
}
