/**
 * The volumes that this host has connected to: written down before a connection is made, and removed after it is
 * gone. So whatever is connected can be found and taken down without the server, and after a crash; and what
 * is in no record is somebody else's.
 */
import { join } from "node:path";
import * as v from "valibot";
import { Fields } from "@libstorage/model";
import type { Attached, Executor, Limits } from "../executor/executor.js";
import { pathPart } from "./path-part.js";
import { RecordFolder } from "./record-folder.js";

const ConnectionRecord = v.object({
  version: v.literal(1),
  volumeID: v.string(),
  driver: v.string(),
  device: v.string(),
  fields: Fields,
});
export type ConnectionRecord = v.InferOutput<typeof ConnectionRecord>;

export class Connections {
  readonly #records: RecordFolder<typeof ConnectionRecord>;

  /** Of one service of one server. */
  constructor(libFolder: string, server: string, service: string) {
    this.#records = new RecordFolder(
      join(libFolder, "connections", pathPart(server), pathPart(service)),
      ConnectionRecord,
      'it says how this host is connected to a volume. Look with "iscsiadm -m session", log out by hand, then remove the file',
    );
  }

  async files(): Promise<readonly string[]> {
    return this.#records.files();
  }

  async readFile(file: string): Promise<ConnectionRecord | undefined> {
    return this.#records.readFile(file);
  }

  async read(volumeID: string): Promise<ConnectionRecord | undefined> {
    return this.#records.read(volumeID);
  }

  /** Doing it again changes nothing. */
  async connect(executor: Executor, attached: Attached, limits: Limits): Promise<void> {
    if (executor.connects?.(attached) !== true) return;
    const { volumeID, device, fields } = attached;
    const known = await this.#records.read(volumeID);
    // Through another door than before, as after it was taken away and given back.
    if (known !== undefined && !isSame(known, attached))
      await this.disconnect(executor, known, limits);
    const record = { version: 1 as const, volumeID, driver: executor.driver, device, fields };
    // What comes from another host may come again by itself after a loss of power; nothing else is left then.
    if (fields["exporter"] === undefined) await this.#records.writeForBoot(record);
    else await this.#records.write(record);
    await executor.connect?.(attached, limits);
  }

  /** What is not connected is fine. */
  async disconnect(executor: Executor, attached: Attached, limits: Limits): Promise<void> {
    if (executor.connects?.(attached) === true) await executor.disconnect?.(attached, limits);
    if (attached.fields["exporter"] === undefined)
      await this.#records.removeForBoot(attached.volumeID);
    else await this.#records.remove(attached.volumeID);
  }
}

/** What may change under a connection without touching it is not compared. */
const DOOR = ["exporter", "iqn", "lun", "portals", "address", "export", "tls"] as const;

function isSame(a: Attached, b: Attached): boolean {
  return a.device === b.device && DOOR.every((key) => a.fields[key] === b.fields[key]);
}
