/**
 * What the keys of the NFS exporter make of an export: in exportfs' own table, and what a client of nfs-ganesha may
 * do. The hosts have addresses of both families.
 */
import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { promisify } from "node:util";
import type { InstanceID } from "@libstorage/model";
import { DRIVERS, EXPORTERS, KernelServer, NfsExporter, SILENT, Storage } from "@libstorage/server";
import type { DriverModule, ExporterModule, FaultPlan } from "@libstorage/server";
import * as v from "valibot";
import { btrfsMissing, makeBtrfs } from "../drivers/btrfs-loop.js";
import { makeScratch } from "../faults/folders.js";
import type { LoopFileSystem } from "../loop.js";
import { inPrivateHost, missing } from "./private-host.js";

type Config = ConstructorParameters<typeof KernelServer>[0];

const execute = promisify(execFile);
const PORT = 22_149;
const CALLER = { who: "tester", via: "test", tx: "tx" };

function far(id: string, ...addresses: string[]): InstanceID {
  const bootID = "0b0e0a1c-5a5b-4c5d-8e8f-000000000001";
  return { id, driver: "vfs", service: "", metadata: { hostName: id, bootID, addresses } };
}

/** Which commands ran. */
class Listener implements FaultPlan {
  readonly ran: string[] = [];
  pass: FaultPlan["pass"] = ({ door, what }, _signal, act) => {
    if (door === "exec") this.ran.push(what);
    return act();
  };
}

interface Opening {
  readonly folder: string;
  readonly root: string;
  readonly driver: DriverModule;
  readonly module: ExporterModule;
  readonly config: unknown;
}

function openStorage(
  { folder, root, driver, module, config }: Opening,
  faults?: FaultPlan,
): Promise<Storage> {
  mkdirSync(join(folder, "journal"), { recursive: true });
  return Storage.open({
    services: [
      {
        name: "svc",
        driver,
        config: { root, quota: "off" },
        exporter: { module, config },
        settings: { shareable: true, uniqueNames: false },
      },
    ],
    journalFolder: join(folder, "journal"),
    libFolder: join(folder, "lib"),
    log: SILENT,
    ...(faults !== undefined && { faults }),
  });
}

async function attachNew(storage: Storage, to: readonly InstanceID[]) {
  const service = storage.service("svc");
  const { id } = await service.volumeCreate({ name: "v", fields: {} }, CALLER);
  const devices: string[] = [];
  for (const host of to) {
    const request = { to: host, deviceName: "", force: false };
    devices.push((await service.volumeAttach(id, request, CALLER)).attachment.deviceName);
  }
  return { id, devices };
}

async function removeAll(storage: Storage): Promise<void> {
  const service = storage.service("svc");
  for (const { id } of service.inventory.volumes.all())
    await service.volumeRemove(id, true, CALLER);
  await storage.close();
}

const scratch = makeScratch("nfs-options");

function declareKernel(): void {
  const A = far("host-a", "10.77.0.2", "fd00::2");
  const B = far("host-b", "10.77.0.3", "fd00::3");
  let count = 0;
  let folder = "";
  let storage: Storage;

  function opening(keys: object): Opening {
    const networks = ["10.77.0.0/24", "fd00::/64"];
    const settings = { folder: join(folder, "shares"), networks, server: "10.77.0.1", ...keys };
    const config = v.parse(EXPORTERS.nfs.config, settings) as Config;
    const shares = join(folder, "shares/svc");
    const places = { folder: shares, exportsFile: join(folder, "ours.exports") };
    const open = async (): Promise<NfsExporter> => {
      const server = new KernelServer(config, { ...places, unavailable: () => undefined });
      return new NfsExporter(config, "svc", shares, server);
    };
    const module = { ...EXPORTERS.nfs, open };
    return { folder, root: join(folder, "root"), driver: DRIVERS.vfs, module, config };
  }

  async function open(keys: object, faults?: FaultPlan): Promise<Storage> {
    storage = await openStorage(opening(keys), faults);
    return storage;
  }

  /** Client and sorted options of each export, by exportfs' own words. */
  function table(): Map<string, string[]> {
    const lines = execFileSync("exportfs", ["-s"], { encoding: "utf8" }).split("\n");
    return new Map(
      lines
        .filter((line) => line.startsWith(`${folder}/`))
        .map((line) => {
          const [, client = "", options = ""] = /\s(\S+?)\((.*)\)/.exec(line) ?? [];
          return [client, options.split(",")];
        }),
    );
  }

  /** What the file, from which `exportfs -r` reads, gives a client. */
  function inFile(client: string): string[] {
    const text = readFileSync(join(folder, "ours.exports"), "utf8");
    const options = text.split(`${client}(`)[1]?.split(")")[0] ?? "";
    return options.split(",");
  }

  describe("the kernel's exports", () => {
    before(() => {
      execFileSync("ip", ["address", "add", "fd00::1/64", "dev", "lan0", "nodad"]);
    });
    afterEach(() => removeAll(storage));

    const next = (): void => {
      count += 1;
      folder = join(scratch.path, `kernel-${count}`);
      mkdirSync(folder, { recursive: true });
    };

    const KEYS: readonly (readonly [object, readonly string[], readonly string[]])[] = [
      [{}, ["rw", "no_root_squash", "no_all_squash", "no_subtree_check"], ["anonuid=65534"]],
      [{ squash: "root" }, ["rw", "root_squash", "no_all_squash"], ["no_root_squash"]],
      [{ squash: "all" }, ["rw", "all_squash"], ["no_all_squash", "no_root_squash"]],
      [
        { squash: "all", anonUid: 1234, anonGid: 4321 },
        ["all_squash", "anonuid=1234", "anongid=4321"],
        ["anonuid=65534"],
      ],
      [{ anonUid: 0 }, ["anonuid=0"], ["anongid=0"]],
      [{ subtreeCheck: true }, ["rw"], ["no_subtree_check"]],
      [{ readOnly: ["10.77.0.0/24"] }, ["ro"], ["rw"]],
      [{ readOnly: ["10.78.0.0/24"] }, ["rw"], ["ro"]],
      [{ security: "krb5p" }, ["sec=krb5p"], ["sec=sys"]],
    ];
    for (const [keys, wanted, unwanted] of KEYS)
      it(`are as configured for both families, and known again: ${JSON.stringify(keys)}`, async () => {
        next();
        await attachNew(await open(keys), [A]);
        assert.deepEqual([...table().keys()].toSorted(), ["10.77.0.2", "fd00::2"]);
        for (const [client, options] of table()) {
          for (const one of wanted) assert.ok(options.includes(one), `${client}: ${one} missing`);
          for (const one of unwanted) assert.ok(!options.includes(one), `${client}: ${one}`);
          const given = inFile(client).filter((one) => !/^anon.*=65534$|^subtree_check$/.test(one));
          for (const one of given) assert.ok(options.includes(one), `${client}: file has ${one}`);
        }
        await storage.close();
        const listener = new Listener();
        await open(keys, listener);
        const again = listener.ran.filter((line) => /exportfs.* -[iu]/.test(line));
        assert.deepEqual(again, [], "what is exported as it should be is left alone");
      });

    it("a host with a read-only address can only read, whatever another host may", async () => {
      next();
      await open({ readOnly: ["10.77.0.3"] });
      const { id } = await attachNew(storage, [A, B]);
      const of = (client: string): string | undefined =>
        table()
          .get(client)
          ?.find((one) => one === "ro" || one === "rw");
      assert.deepEqual(
        ["10.77.0.2", "fd00::2", "10.77.0.3", "fd00::3"].map((client) => of(client)),
        ["rw", "rw", "ro", "ro"],
      );
      const options = storage
        .service("svc")
        .volume(id)
        .attachments.map(({ fields = {} }) => fields["options"]?.split(",")[0]);
      assert.deepEqual(options, ["rw", "ro"], "what they are told to mount with");
    });

    it("are exported anew at the start after the keys were changed, each of them", async () => {
      next();
      await attachNew(await open({ squash: "all", anonUid: 7, anonGid: 8 }), [A]);
      const steps: readonly (readonly [object, RegExp, RegExp])[] = [
        [{ squash: "root", anonUid: 7, anonGid: 8 }, /no_all_squash/, /(?:^|,)all_squash|no_root_/],
        [{ squash: "root", anonGid: 8 }, /anongid=8/, /anonuid=/],
        [{ squash: "root" }, /no_subtree_check/, /anongid=/],
        [{ squash: "root", subtreeCheck: true }, /(?:^|,)root_squash/, /no_subtree_check/],
        [{ squash: "none" }, /no_root_squash.*no_all_squash/, /(?:^|,)(?:root|all)_squash/],
        [{ squash: "all" }, /(?:^|,)all_squash/, /no_all_squash/],
      ];
      for (const [keys, wanted, unwanted] of steps) {
        await storage.close();
        await open(keys);
        for (const [client, options] of table()) {
          assert.match(options.join(), wanted, `${client} with ${JSON.stringify(keys)}`);
          assert.doesNotMatch(options.join(), unwanted, `${client} with ${JSON.stringify(keys)}`);
        }
      }
    });

    it("of IPv6 clients are withdrawn with the others", async () => {
      next();
      await open({});
      const { id, devices } = await attachNew(storage, [A]);
      assert.match(devices[0] ?? "", /^10\.77\.0\.1:/);
      await storage.service("svc").volumeDetach(id, A, false, CALLER);
      assert.deepEqual(table(), new Map());
    });

    it("a host with an IPv6 address alone is told this server's in brackets", async () => {
      next();
      await open({ server: undefined });
      const { devices } = await attachNew(storage, [far("host-c", "fd00::9")]);
      assert.match(devices[0] ?? "", /^\[fd00::1\]:\//);
      assert.deepEqual([...table().keys()], ["fd00::9"]);
      assert.match(readFileSync(join(folder, "ours.exports"), "utf8"), / fd00::9\(rw,/);
    });
  });
}

function declareGanesha(): void {
  let loop: LoopFileSystem;
  let storage: Storage;
  const A = far("host-a", "127.0.0.1");

  function daemons(): number[] {
    return readdirSync("/proc").flatMap((pid) => {
      try {
        const line = readFileSync(`/proc/${Number(pid)}/cmdline`, "utf8");
        return line.includes(`${scratch.path}/`) && /ganesha/.test(line) ? [Number(pid)] : [];
      } catch {
        return [];
      }
    });
  }

  /** Lets the host, as root, make a file. @returns its owner, or what it was told */
  async function tryToMake(keys: object, turn: number): Promise<string> {
    const folder = join(scratch.path, `ganesha-${turn}`);
    const root = join(loop.folder, `root-${turn}`);
    const config = v.parse(EXPORTERS.nfs.config, {
      mode: "ganesha",
      server: "127.0.0.1",
      version: "4.0",
      folder: join(folder, "shares"),
      port: PORT + turn,
      ...keys,
    });
    const parts = { folder, root, driver: DRIVERS.btrfs, module: EXPORTERS.nfs, config };
    storage = await openStorage(parts);
    const { id, devices } = await attachNew(storage, [A]);
    const data = join(root, "vol", id);
    chmodSync(data, 0o777);
    writeFileSync(join(folder, "source"), "x");
    const url = `nfs://${devices[0]?.replace(":", "")}/made?version=4&nfsport=${PORT + turn}`;
    // This libnfs cannot write what is in a file, so that it fails in any case.
    const said = await execute("nfs-cp", [join(folder, "source"), url]).then(
      ({ stderr }) => stderr,
      (error: unknown) => String((error as { readonly stderr?: string }).stderr),
    );
    const made = statSync(join(data, "made"), { throwIfNoEntry: false });
    return made === undefined ? said : `${made.uid}:${made.gid}`;
  }

  describe("nfs-ganesha's exports", () => {
    before(() => {
      loop = makeBtrfs();
    });
    afterEach(() => removeAll(storage));
    after(async () => {
      for (const pid of daemons()) process.kill(pid, "SIGKILL");
      loop.remove();
      await scratch.remove();
    });

    const KEYS: readonly (readonly [object, RegExp])[] = [
      [{}, /^0:0$/],
      [{ squash: "root", anonUid: 1234, anonGid: 4321 }, /^1234:4321$/],
      [{ squash: "all" }, /^65534:65534$/],
      [{ readOnly: ["127.0.0.1"] }, /NFS4ERR_ROFS/],
    ];
    for (const [turn, [keys, wanted]] of KEYS.entries())
      it(`are as configured: ${JSON.stringify(keys)}`, async () => {
        assert.match(await tryToMake(keys, turn), wanted);
      });
  });
}

const skip = missing("exportfs", "ganesha.nfsd", "nfs-cp") || btrfsMissing();

inPrivateHost(import.meta.url, { name: "keys of the NFS exporter", skip, limitMs: 300_000 }, () => {
  declareKernel();
  declareGanesha();
});
