/** Access modes of the Container Storage Interface, and what each allows. */

interface Allowed {
  /** Whether several nodes may have the volume at once. */
  readonly manyNodes: boolean;
  /** Whether it may be written at all, and by how many nodes. */
  readonly writers: "none" | "one" | "many";
  /** Whether several workloads of one node may have it at once. */
  readonly manyTargets: boolean;
}

export const ACCESS_MODES = {
  SINGLE_NODE_WRITER: { manyNodes: false, writers: "one", manyTargets: false },
  SINGLE_NODE_READER_ONLY: { manyNodes: false, writers: "none", manyTargets: false },
  MULTI_NODE_READER_ONLY: { manyNodes: true, writers: "none", manyTargets: true },
  MULTI_NODE_SINGLE_WRITER: { manyNodes: true, writers: "one", manyTargets: true },
  MULTI_NODE_MULTI_WRITER: { manyNodes: true, writers: "many", manyTargets: true },
  SINGLE_NODE_SINGLE_WRITER: { manyNodes: false, writers: "one", manyTargets: false },
  SINGLE_NODE_MULTI_WRITER: { manyNodes: false, writers: "one", manyTargets: true },
} as const satisfies Record<string, Allowed>;

export type KnownMode = keyof typeof ACCESS_MODES;
/** Of a later specification: its number. */
export type AccessMode = KnownMode | "UNKNOWN" | number;

export function isKnownMode(mode: AccessMode): mode is KnownMode {
  return typeof mode === "string" && Object.hasOwn(ACCESS_MODES, mode);
}

export function allowedBy(mode: KnownMode): Allowed {
  return ACCESS_MODES[mode];
}
