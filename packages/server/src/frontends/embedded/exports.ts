/** What is exported to other hosts, from the records, with the connections that exist now. */
import type { Export, VolumeService } from "@libstorage/model";
import { exporterOf, holdsOf } from "../../core/exporter.js";
import type { Hold, Session } from "../../core/exporter.js";
import type { StorageService } from "../../core/service.js";
import type { Reads } from "./reads.js";

export function exportOperations(
  reads: Reads,
): Pick<VolumeService, "exports" | "exportsByService"> {
  return {
    exports: async () => reads.forAll(exportsOf),
    exportsByService: async ({ service }) => exportsOf(reads.storage.service(service)),
  };
}

async function exportsOf(service: StorageService): Promise<Export[]> {
  const holds = holdsOf(service.inventory.volumes.all());
  // A service that exports nothing is not asked.
  const sessions = holds.length > 0 ? await service.sessions() : [];
  return holds.map((hold) => exportOf(service.name, hold, sessions));
}

function exportOf(
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
  };
}
