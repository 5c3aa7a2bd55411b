/** Two hosts of one initiator name, as clones of one image have: neither could be cut off by itself. */
import { StorageError } from "@libstorage/model";
import { heldBy } from "../../core/access.js";
import type { VolumeRecord } from "../../core/driver.js";
import type { IscsiHold } from "./door.js";

/**
 * @param planned the volume as it will be: whom it does not name is cut off for the holder
 * @throws {StorageError} `failed-precondition` when another host has come by that name
 */
export function checkInitiatorFree(
  initiator: string,
  holder: string,
  holds: readonly IscsiHold[],
  planned: VolumeRecord,
): void {
  const taken = holds.find(
    ({ door, attachment: { instanceID }, volume }) =>
      door.initiator === initiator &&
      instanceID.id !== holder &&
      (volume.id !== planned.id || heldBy(planned, instanceID) !== undefined),
  );
  if (taken === undefined) return;
  const other = taken.attachment.instanceID.id;
  throw new StorageError(
    "failed-precondition",
    `${holder} and ${other} have one iSCSI initiator name, ${initiator}, so neither could be cut off alone; write a name of its own, as iscsi-iname makes one, to /etc/iscsi/initiatorname.iscsi on one of them and restart iscsid there`,
    { instanceID: holder, holder: other, initiatorName: initiator },
  );
}
