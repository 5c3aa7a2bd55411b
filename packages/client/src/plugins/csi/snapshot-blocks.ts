/** The blocks of snapshots as the storage service tells them. */
import type { Snapshot } from "@libstorage/model";
import type { ChangesReply, ContentClient } from "../../content.js";
import type { Backend, Service } from "./backend.js";
import { findSnapshot } from "./controller-snapshots.js";
import type { Extent, SnapshotBlocks, SnapshotMap } from "./snapshot-metadata.js";
import { CsiError, invalid } from "./status.js";

/** Zeros are no data: of those that have changed the reader wants to know all the same. */
async function* plain({ extents }: ChangesReply): AsyncGenerator<Extent, void> {
  for await (const { offset, length } of extents) yield { offset, length };
}

async function existing(service: Service, id: string, signal: AbortSignal): Promise<Snapshot> {
  const found = await findSnapshot(service, id, signal);
  if (found === undefined) throw new CsiError("NOT_FOUND", `there is no snapshot ${id}`);
  return found;
}

/** @throws {CsiError} NOT_FOUND, INVALID_ARGUMENT for snapshots of two volumes */
async function checkSnapshots(
  service: Service,
  targetID: string,
  baseID: string | undefined,
  signal: AbortSignal,
): Promise<void> {
  const target = await existing(service, targetID, signal);
  if (baseID === undefined) return;
  const base = await existing(service, baseID, signal);
  if (base.volumeID !== target.volumeID)
    throw invalid(
      `snapshot ${base.id} is one of volume ${base.volumeID}, and ${target.id} of ${target.volumeID}: name two of one volume`,
    );
}

export function serviceBlocks(backend: Backend, content: ContentClient): SnapshotBlocks {
  const read = async (
    snapshotID: string,
    since: string | undefined,
    from: number,
    signal: AbortSignal,
  ): Promise<SnapshotMap> => {
    if (!(await knowsBlocks(backend, signal)))
      throw new CsiError("UNIMPLEMENTED", "the service does not know the blocks of its snapshots");
    const found = await backend.service(signal);
    await checkSnapshots(found, snapshotID, since, signal);
    const { name: service } = found;
    const query = { ...(since !== undefined && { since }), ...(from > 0 && { from }) };
    const reply = await content.snapshotChanges({ service, snapshotID, ...query }, { signal });
    return { volumeBytes: reply.sizeBytes, extents: plain(reply) };
  };
  return {
    allocated: (snapshotID, from, signal) => read(snapshotID, undefined, from, signal),
    changed: (base, target, from, signal) => read(target, base, from, signal),
  };
}

/** Whether the service can tell. */
export async function knowsBlocks(backend: Backend, signal: AbortSignal): Promise<boolean> {
  const { abilities = [] } = await backend.info(signal);
  return abilities.includes("changes");
}
