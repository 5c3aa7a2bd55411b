/**
 * A server under load, to be killed: 16 callers create, copy, attach and remove volumes of the folder given
 * as argument, and tell the parent what was answered.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DRIVERS, SILENT, Storage } from "@libstorage/server";
import type { StorageService } from "@libstorage/server";
import { HOST_A, SERVICE, caller } from "./world.js";

/** What the parent is told. A removal is announced before it begins: from then on both ends are right. */
export interface Told {
  readonly what: "ready" | "created" | "removing" | "removed" | "attached" | "detaching";
  readonly id: string;
}

const CALLERS = 16;
const MAX_VOLUMES = 40;

/** Resolves once the parent can read it, whatever happens to this process then. */
function tell(what: Told["what"], id: string): Promise<void> {
  return new Promise((resolve, reject) => {
    process.send?.({ what, id } satisfies Told, undefined, undefined, (error) =>
      error === null ? resolve() : reject(error),
    );
  });
}

/** Volumes that a caller works at, so that no two do. */
const taken = new Set<string>();

async function withVolume(
  service: StorageService,
  source: string,
  act: (id: string) => Promise<void>,
): Promise<void> {
  const free = service.inventory.volumes.all().filter(({ id }) => id !== source && !taken.has(id));
  const one = free[Math.floor(Math.random() * free.length)];
  if (one === undefined) return;
  taken.add(one.id);
  try {
    await act(one.id);
  } finally {
    taken.delete(one.id);
  }
}

async function step(service: StorageService, source: string): Promise<void> {
  const dice = service.inventory.volumes.size > MAX_VOLUMES ? 0.9 : Math.random();
  const name = `volume ${Math.random()}`;
  if (dice < 0.4) {
    const { id } = await service.volumeCreate({ name, fields: {} }, caller());
    await tell("created", id);
  } else if (dice < 0.55) {
    const { id } = await service.volumeCopy(source, { name, fields: {} }, caller());
    await tell("created", id);
  } else if (dice < 0.7)
    await withVolume(service, source, async (id) => {
      const request = { to: HOST_A, deviceName: "", force: false };
      await service.volumeAttach(id, request, caller());
      await tell("attached", id);
      await tell("detaching", id);
      await service.volumeDetach(id, HOST_A, false, caller());
    });
  else
    await withVolume(service, source, async (id) => {
      await tell("removing", id);
      await service.volumeRemove(id, true, caller());
      await tell("removed", id);
    });
}

const folder = process.argv[2] ?? "";
const storage = await Storage.open({
  services: [
    {
      name: SERVICE,
      driver: DRIVERS.vfs,
      config: { root: join(folder, "root"), quota: "off" },
      settings: { shareable: false, uniqueNames: false },
    },
  ],
  journalFolder: join(folder, "journal"),
  libFolder: join(folder, "lib"),
  log: SILENT,
});
const service = storage.service(SERVICE);
let source = service.inventory.volumes.named("source")?.id;
if (source === undefined) {
  source = (await service.volumeCreate({ name: "source", fields: {} }, caller())).id;
  const data = join(folder, "root", "vol", source);
  for (let count = 0; count < 8; count += 1)
    await writeFile(join(data, `file ${count}`), Buffer.alloc(100_000, count));
}
await tell("ready", source);
const work = async (id: string): Promise<never> => {
  for (;;) await step(service, id);
};
await Promise.all(Array.from({ length: CALLERS }, () => work(source)));
