/** Lists of exports: the same object as before while no record and no connection has changed. */
import type { Export } from "@libstorage/model";
import type { VolumeRecord } from "../../core/driver.js";
import { holdsOf } from "../../core/exporter.js";
import type { Session } from "../../core/exporter.js";
import type { StorageService } from "../../core/service.js";
import { exportOf } from "./export-wire.js";

interface Known {
  /** The sessions with which it was made. */
  readonly sessions: string;
  readonly list: Export[];
}

/** Keyed by the array of records, which is another one as soon as a record changes. */
export class ExportLists {
  readonly #lists = new WeakMap<readonly VolumeRecord[], Known>();

  async of({ name, inventory, exports }: StorageService): Promise<Export[]> {
    const before = inventory.volumes.all();
    const made = this.#lists.get(before)?.list ?? holdsOf(before);
    // A service that exports nothing is not asked.
    const open = made.length === 0 ? [] : await exports.sessions();
    // Records may have changed while the exporters were asked.
    const records = inventory.volumes.all();
    const sessions = JSON.stringify(open);
    const known = this.#lists.get(records);
    if (known?.sessions === sessions) return known.list;
    const list = Object.freeze(listOf(name, records, open)) as Export[];
    this.#lists.set(records, { sessions, list });
    return list;
  }
}

function listOf(
  service: string,
  records: readonly VolumeRecord[],
  sessions: readonly Session[],
): Export[] {
  const byVolume = new Map<string, Session[]>();
  for (const session of sessions)
    byVolume.set(session.volumeID, [...(byVolume.get(session.volumeID) ?? []), session]);
  return holdsOf(records).map((hold) =>
    exportOf(service, hold, byVolume.get(hold.volume.id) ?? []),
  );
}
