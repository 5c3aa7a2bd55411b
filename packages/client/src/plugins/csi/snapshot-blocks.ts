/** The blocks of snapshots as the storage service tells them. */
import type { ChangesReply, ContentClient } from "../../content.js";
import type { Backend } from "./backend.js";
import { isPossibleID } from "./names.js";
import type { Extent, SnapshotBlocks, SnapshotMap } from "./snapshot-metadata.js";
import { CsiError } from "./status.js";

/** Zeros are no data: of those that have changed the reader wants to know all the same. */
async function* plain({ extents }: ChangesReply): AsyncGenerator<Extent, void> {
  for await (const { offset, length } of extents) yield { offset, length };
}

async function existing(backend: Backend, id: string, signal: AbortSignal): Promise<void> {
  if (isPossibleID(id)) {
    const { calls, name } = await backend.service(signal);
    await calls.snapshotInspect({ service: name, snapshotID: id }, undefined, { signal });
  } else throw new CsiError("NOT_FOUND", `there is no snapshot ${id}`);
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
    for (const id of [snapshotID, ...(since === undefined ? [] : [since])])
      await existing(backend, id, signal);
    const { name: service } = await backend.service(signal);
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
