/** A vfs service with its journal wherever a test wants them, checked at its start as in production. */
import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { DRIVERS, SILENT, Storage } from "@libstorage/server";
import type { ServiceSpec, StorageService } from "@libstorage/server";
import { caller } from "../faults/world.js";

export interface Places {
  readonly root: string;
  readonly journal: string;
  /** Default: one vfs service named `svc` over `root`. */
  readonly services?: readonly ServiceSpec[];
}

export function vfsService(name: string, root: string): ServiceSpec {
  return {
    name,
    driver: DRIVERS.vfs,
    config: { root, quota: "off" },
    settings: { shareable: false, uniqueNames: false },
  };
}

export async function openAt({ root, journal, services }: Places): Promise<Storage> {
  await mkdir(journal, { recursive: true });
  return Storage.open({
    services: services ?? [vfsService("svc", root)],
    journalFolder: journal,
    libFolder: join(dirname(journal), "lib"),
    log: SILENT,
  });
}

/** Opens, runs, and closes whatever happens. */
export async function withStorage<T>(
  places: Places,
  act: (service: StorageService, storage: Storage) => Promise<T>,
): Promise<T> {
  const storage = await openAt(places);
  try {
    await storage.recovered();
    return await act(storage.service("svc"), storage);
  } finally {
    await storage.close();
  }
}

export async function create(service: StorageService, name: string): Promise<string> {
  return (await service.volumeCreate({ name, fields: {} }, caller())).id;
}

export function idsOf(service: StorageService): string[] {
  return service.inventory.volumes.all().map(({ id }) => id);
}
