/**
 * The SnapshotMetadata service: which blocks of a snapshot have data, or differ from an earlier one's. It is
 * advertised when the service can tell.
 */
import type { BlockMetadata, Handlers } from "./messages.js";
import { checkID } from "./names.js";
import { CsiError, invalid } from "./status.js";

/** Bytes `offset` to `offset + length`. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
}

export interface SnapshotMap {
  readonly volumeBytes: number;
  /** In ascending order, apart from each other. */
  readonly extents: AsyncIterable<Extent>;
}

/** What a service must know for it. @throws {StorageError} `not-found`, `failed-precondition` */
export interface SnapshotBlocks {
  /** Those with data. */
  allocated(snapshotID: string, from: number, signal: AbortSignal): Promise<SnapshotMap>;
  /** Those in which `target` differs from `base`, an earlier snapshot of the same volume. */
  changed(base: string, target: string, from: number, signal: AbortSignal): Promise<SnapshotMap>;
}

/** As many as fit into a message with much room to spare. */
const MOST_AT_ONCE = 4096;

/** @param blocks left out: both calls are UNIMPLEMENTED */
export function snapshotMetadata(blocks: SnapshotBlocks | undefined): Handlers {
  if (blocks === undefined) return {};
  return {
    GetMetadataAllocated: async function* ({ snapshotId, startingOffset, maxResults }, signal) {
      checkID("snapshot_id", snapshotId);
      checkPage(startingOffset, maxResults);
      const map = await blocks.allocated(snapshotId, startingOffset, signal);
      yield* pages(map, startingOffset, maxResults);
    },
    GetMetadataDelta: async function* (request, signal) {
      const { baseSnapshotId, targetSnapshotId, startingOffset, maxResults } = request;
      checkID("base_snapshot_id", baseSnapshotId);
      checkID("target_snapshot_id", targetSnapshotId);
      checkPage(startingOffset, maxResults);
      const map = await blocks.changed(baseSnapshotId, targetSnapshotId, startingOffset, signal);
      yield* pages(map, startingOffset, maxResults);
    },
  };
}

function checkPage(startingOffset: number, maxResults: number): void {
  if (startingOffset < 0)
    throw new CsiError("OUT_OF_RANGE", `starting_offset ${startingOffset} is negative`);
  if (maxResults < 0) throw invalid("max_results must not be negative");
}

/**
 * At least one message, so that the volume's size is told. Who goes on behind the last byte is told of nothing more:
 * only what exceeds the size is out of range.
 */
async function* pages(
  { volumeBytes, extents }: SnapshotMap,
  from: number,
  maxResults: number,
): AsyncIterable<BlockMetadata> {
  if (from > volumeBytes)
    throw new CsiError(
      "OUT_OF_RANGE",
      `starting_offset ${from} lies beyond the ${volumeBytes} bytes of the volume`,
    );
  const most = maxResults === 0 ? MOST_AT_ONCE : Math.min(maxResults, MOST_AT_ONCE);
  const page = (all: readonly Extent[]): BlockMetadata => ({
    blockMetadataType: "VARIABLE_LENGTH",
    volumeCapacityBytes: volumeBytes,
    blockMetadata: all.map(({ offset, length }) => ({ byteOffset: offset, sizeBytes: length })),
  });
  let some: Extent[] = [];
  let isToldYet = false;
  for await (const extent of extents) {
    const end = extent.offset + extent.length;
    if (end <= from) continue;
    const offset = Math.max(extent.offset, from);
    some.push({ offset, length: end - offset });
    if (some.length < most) continue;
    yield page(some);
    isToldYet = true;
    some = [];
  }
  if (some.length > 0 || !isToldYet) yield page(some);
}
