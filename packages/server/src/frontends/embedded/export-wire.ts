/** Exports as the API shows them. */
import type { Export } from "@libstorage/model";
import type { OpenDoor } from "../../core/doors.js";
import { doorOf, exporterOf } from "../../core/exporter.js";
import type { Hold, Session } from "../../core/exporter.js";

export function exportOf(
  service: string,
  { volume, attachment }: Hold,
  sessions: readonly Session[],
): Export {
  const { instanceID, deviceName, fields = {} } = attachment;
  const isIts = (session: Session): boolean =>
    session.volumeID === volume.id &&
    (session.instanceID === undefined || session.instanceID === instanceID.id);
  return {
    service,
    volumeID: volume.id,
    exporter: exporterOf(attachment) ?? "",
    instanceID,
    deviceName,
    fields,
    sessions: sessions.filter(isIts).map(({ peer, address, state }) => ({
      peer,
      ...(address !== undefined && { address }),
      state,
    })),
    ...doorMembers(attachment),
  };
}

/** For the answer of a task. */
export function addedExport(door: OpenDoor): Export {
  return exportOf(door.service, door, []);
}

/** What only an export has that was added by itself. */
function doorMembers(
  attachment: Hold["attachment"],
): Pick<Export, "id" | "writable" | "state" | "options"> {
  const door = doorOf(attachment);
  if (door === undefined) return {};
  const { id, isWritable, state, options } = door;
  return { id, writable: isWritable, state, options };
}
