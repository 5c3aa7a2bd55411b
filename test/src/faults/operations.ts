/** Every operation that changes something, as the fault run tries it. */
import { GIB } from "@libstorage/model";
import type { InstanceID } from "@libstorage/model";
import type { Caller, StorageService } from "@libstorage/server";
import { HOST_A, HOST_B } from "./world.js";
import type { ObjectState, WorldState } from "./world.js";

export interface Operation {
  readonly name: string;
  run(service: StorageService, caller: Caller): Promise<unknown>;
  /** A state, besides the one before and the one after, in which a failure may leave the world. */
  halfway?(before: WorldState): WorldState;
  /** Whether a kill may leave it halfway, too; otherwise recovery completes it or takes it back. */
  readonly isHalfwayAfterKill?: boolean;
}

const fields = {};

/** The old holder is cut off before anything else happens, and cannot be given back. */
function withoutHolder(before: WorldState): WorldState {
  const key = "volume held";
  const held = before.get(key) as ObjectState;
  return new Map([...before, [key, { ...held, holders: [] }]]);
}

/** The objects that the operations work on. */
export interface Ids {
  readonly free: string;
  readonly held: string;
  readonly snapshot: string;
}

/** @param hostA holds a volume @param hostB wants one */
export const operationsOn = (
  { free, held, snapshot }: Ids,
  hostA: InstanceID = HOST_A,
  hostB: InstanceID = HOST_B,
): readonly Operation[] => [
  {
    name: "create",
    run: (service, caller) =>
      service.volumeCreate({ name: "new", sizeBytes: 3 * GIB, fields }, caller),
  },
  {
    name: "copy",
    run: (service, caller) => service.volumeCopy(free, { name: "new", fields }, caller),
  },
  {
    name: "snapshot",
    run: (service, caller) => service.volumeSnapshot(free, { name: "new", fields }, caller),
  },
  {
    name: "create from snapshot",
    run: (service, caller) =>
      service.volumeCreateFromSnapshot(snapshot, { name: "new", fields }, caller),
  },
  {
    name: "snapshot copy",
    run: (service, caller) => service.snapshotCopy(snapshot, { name: "new", fields }, caller),
  },
  {
    name: "expand",
    run: (service, caller) => service.volumeExpand(free, 16 * GIB, caller),
  },
  {
    name: "revert",
    run: (service, caller) => service.volumeRevert(free, snapshot, caller),
  },
  {
    name: "update",
    run: (service, caller) =>
      service.volumeUpdate(free, { name: "renamed", fields: { owner: "me" } }, caller),
  },
  {
    name: "attach",
    run: (service, caller) =>
      service.volumeAttach(free, { to: hostB, deviceName: "", force: false }, caller),
  },
  {
    name: "preempting attach",
    run: (service, caller) =>
      service.volumeAttach(held, { to: hostB, deviceName: "", force: true }, caller),
    halfway: withoutHolder,
    isHalfwayAfterKill: true,
  },
  {
    name: "detach",
    run: (service, caller) => service.volumeDetach(held, hostA, false, caller),
  },
  {
    name: "forced detach",
    run: (service, caller) => service.volumeDetach(held, hostB, true, caller),
  },
  {
    name: "remove",
    run: (service, caller) => service.volumeRemove(free, false, caller),
  },
  {
    name: "forced remove",
    run: (service, caller) => service.volumeRemove(held, true, caller),
    halfway: withoutHolder,
  },
  {
    name: "snapshot remove",
    run: (service, caller) => service.snapshotRemove(snapshot, caller),
  },
];
