/** The NFS exporter over nfs-ganesha, with libnfs (NFS 4.0) as the client. */
import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import type { InstanceID } from "@libstorage/model";
import { DRIVERS, EXPORTERS, SILENT, Storage } from "@libstorage/server";
import type { DriverModule, StorageService } from "@libstorage/server";
import * as v from "valibot";
import { btrfsMissing, makeBtrfs } from "../drivers/btrfs-loop.js";
import { until } from "../lab/limit.js";
import type { LoopFileSystem } from "../loop.js";
import { inPrivateHost, missing } from "./private-host.js";

const execute = promisify(execFile);
const PORT = 22_049;
const CALLER = { who: "tester", via: "test", tx: "tx" };
const fields = {};

function far(id: string, last: number): InstanceID {
  const bootID = `0b0e0a1c-5a5b-4c5d-8e8f-00000000000${last}`;
  // This host plays the other ones, so it has their addresses.
  const facts = { hostName: id, bootID, addresses: [`127.0.0.${last}`] };
  return { id, driver: "btrfs", service: "", metadata: facts };
}

const A = far("host-a", 1);
const B = far("host-b", 2);

let loop: LoopFileSystem;
let folder: string;

const urlOf = (deviceName: string, file = ""): string =>
  `nfs://${deviceName.replace(":", "")}${file}?version=4&nfsport=${PORT}`;

async function read(deviceName: string, file: string): Promise<string> {
  return (await execute("nfs-cat", [urlOf(deviceName, file)])).stdout;
}

async function open(driver: DriverModule, root: string, port = PORT): Promise<Storage> {
  const config = v.parse(EXPORTERS.nfs.config, {
    mode: "ganesha",
    server: "127.0.0.1",
    version: "4.0",
    folder: join(folder, "shares"),
    port,
  });
  mkdirSync(join(folder, "journal"), { recursive: true });
  return Storage.open({
    services: [
      {
        name: "svc",
        driver,
        config: { root, quota: "off" },
        exporter: { module: EXPORTERS.nfs, config },
        settings: { shareable: false, uniqueNames: false },
      },
    ],
    journalFolder: join(folder, "journal"),
    libFolder: join(folder, "lib"),
    log: SILENT,
  });
}

async function attach(service: StorageService, id: string, to = A, force = false): Promise<string> {
  const request = { to, deviceName: "", force };
  return (await service.volumeAttach(id, request, CALLER)).attachment.deviceName;
}

/** A volume with one file, which anybody may write. */
async function create(service: StorageService, root: string, name: string): Promise<string> {
  const { id } = await service.volumeCreate({ name, fields }, CALLER);
  writeFileSync(join(root, "vol", id, "file"), `of ${name}`, { mode: 0o666 });
  return id;
}

function daemons(): string[] {
  return readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(join(folder, "lib"));
    } catch {
      return false;
    }
  });
}

function checkNothingLeft(): void {
  assert.deepEqual(daemons(), []);
  assert.doesNotMatch(readFileSync("/proc/mounts", "utf8"), new RegExp(join(folder, "shares")));
  assert.deepEqual(readdirSync(join(folder, "shares/svc")), []);
}

async function keepsApart(): Promise<void> {
  const root = join(loop.folder, "root");
  const storage = await open(DRIVERS.btrfs, root);
  const service = storage.service("svc");
  const first = await create(service, root, "first");
  const second = await create(service, root, "second");
  const [one, two] = [await attach(service, first), await attach(service, second)];
  assert.equal(await read(one, "/file"), "of first");
  assert.equal(await read(two, "/file"), "of second");
  const above = one.replace(/\/[^/]+\/\d+$/, "");
  const { stdout } = await execute("nfs-ls", [urlOf(above)]);
  assert.equal(stdout.trim().split("\n").length, 2, "only what leads to exports is shown");
  await service.volumeDetach(first, A, false, CALLER);
  await assert.rejects(read(one, "/file"), /NFS4ERR_NOENT/);
  assert.equal(await read(two, "/file"), "of second");
  for (const id of [first, second]) await service.volumeRemove(id, true, CALLER);
  checkNothingLeft();
  await storage.close();
}

/** It would serve the first of them only. */
async function refusesPlainFolders(): Promise<void> {
  const root = join(folder, "root");
  const storage = await open(DRIVERS.vfs, root);
  const service = storage.service("svc");
  const id = await create(service, root, "plain");
  await assert.rejects(
    attach(service, id),
    /is a folder of a larger file system.*use the btrfs driver/,
  );
  await service.volumeRemove(id, false, CALLER);
  await storage.close();
}

async function outlivesServer(): Promise<void> {
  const root = join(loop.folder, "root");
  const storage = await open(DRIVERS.btrfs, root);
  const id = await create(storage.service("svc"), root, "lasting");
  const device = await attach(storage.service("svc"), id);
  await storage.close();
  const [pid] = daemons();
  assert.equal(await read(device, "/file"), "of lasting", "it goes on without the server");
  const again = await open(DRIVERS.btrfs, root);
  assert.deepEqual(again.warnings, []);
  assert.deepEqual(daemons(), [pid], "the same daemon");
  process.kill(Number(pid), "SIGKILL");
  await until("the daemon is started again", async () => daemons().length > 0, 20_000);
  // Who had something open gets half a minute to come again.
  await until("it serves", () => read(device, "/file").then(Boolean, () => false), 90_000);
  await again.service("svc").volumeRemove(id, true, CALLER);
  checkNothingLeft();
  await again.close();
}

/**
 * Makes files as fast as the client can. This libnfs cannot write what is in them (every WRITE to ganesha 4.3 fails), so that what may not arrive is their names.
 */
function startWriter(device: string, source: string): () => void {
  let isEnded = false;
  const work = async (): Promise<void> => {
    for (let count = 0; !isEnded; count += 1)
      await execute("nfs-cp", [source, urlOf(device, `/up-${count}`)]).catch(() => sleep(5));
  };
  void work();
  return () => (isEnded = true);
}

async function preempts(): Promise<void> {
  const root = join(loop.folder, "root");
  const storage = await open(DRIVERS.btrfs, root);
  const service = storage.service("svc");
  const id = await create(service, root, "fenced");
  const device = await attach(service, id);
  const source = join(folder, "source");
  writeFileSync(source, Buffer.alloc(1_000, 7));
  const stop = startWriter(device, source);
  const data = join(root, "vol", id);
  chmodSync(data, 0o777);
  const names = (): string[] => readdirSync(data).toSorted();
  await until("it writes", async () => names().length > 5, 30_000);
  const next = await attach(service, id, B, true);
  const then = names();
  await sleep(1_000);
  assert.deepEqual(names(), then, "a write came after the answer");
  assert.notEqual(next, device, "a hold has a path of its own");
  stop();
  await service.volumeRemove(id, true, CALLER);
  checkNothingLeft();
  await storage.close();
}

async function refusesTakenPort(): Promise<void> {
  const taken = createServer().listen(PORT + 1, "0.0.0.0");
  const root = join(loop.folder, "root");
  const storage = await open(DRIVERS.btrfs, root, PORT + 1);
  const service = storage.service("svc");
  const id = await create(service, root, "no port");
  await assert.rejects(attach(service, id), /something else listens on port 22050.*"nfs\.port"/);
  assert.deepEqual(service.volume(id).attachments, []);
  await service.volumeRemove(id, false, CALLER);
  taken.close();
  checkNothingLeft();
  await storage.close();
}

inPrivateHost(
  import.meta.url,
  {
    name: "NFS by nfs-ganesha",
    skip: missing("ganesha.nfsd", "nfs-cat") || btrfsMissing(),
    limitMs: 300_000,
  },
  () => {
    describe("NFS by nfs-ganesha", () => {
      before(() => {
        folder = mkdtempSync(join(tmpdir(), "libstorage-ganesha-"));
        loop = makeBtrfs();
        assert.match(execFileSync("ip", ["-br", "address"], { encoding: "utf8" }), /10\.77\.0\.1/);
      });
      after(() => {
        for (const pid of daemons()) process.kill(Number(pid), "SIGKILL");
        loop.remove();
        rmSync(folder, { recursive: true, force: true });
      });
      // Two subvolumes of one file system: test-vm facts, trap 12.
      it("keeps volumes apart, and serves them until they are detached", keepsApart);
      it("refuses folders that are no file systems of their own", refusesPlainFolders);
      it("the daemon outlives the server, and is started again when it dies", outlivesServer);
      it("lets no write of a preempted holder arrive", preempts);
      it("a port that is taken is named, and nothing is exported", refusesTakenPort);
    });
  },
);
