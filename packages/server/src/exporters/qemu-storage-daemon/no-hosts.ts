/** Exporters that serve their own host, and no other. */
import { StorageError } from "@libstorage/model";
import type { VolumeRecord } from "../../core/driver.js";
import type { Door, Wanted } from "../../core/exporter.js";

export class NoHosts {
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  /** @throws {StorageError} `failed-precondition`, always */
  async plan({ id }: VolumeRecord, { holder }: Wanted): Promise<Door> {
    throw new StorageError(
      "failed-precondition",
      `volume ${id} cannot be attached to ${holder.id} through ${this.#name}, which serves the server's own host; set "exporter: nbd" for the service, and ${this.#name} in its "exports"`,
      { volumeID: id, instanceID: holder.id },
    );
  }
}
