/** Which way a disk takes, and how a device of the kernel's NBD client is known again. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, it } from "node:test";
import { ConfigTree, ScopedConfig } from "@libstorage/model";
import { CommandError } from "../../executor/exec.js";
import type { Exec } from "../../executor/exec.js";
import type { ExecutorContext } from "../../executor/executor.js";
import { Deadline } from "../transport.js";
import { fuseWay } from "./fuse-way.js";
import { KernelWay, parseConnected } from "./kernel-way.js";
import { placeOfExport } from "./place.js";
import type { Place } from "./place.js";
import { WayClosed } from "./way.js";
import { chooseWays } from "./ways.js";

let folder: string;
let place: Place;
let asked: string[][];
/** What start-stop-daemon and nbd-client do here. */
let answers: (file: string, args: readonly string[]) => string;

const deadline = () => new Deadline({ timeoutMs: 5_000, signal: new AbortController().signal });
const door = {
  host: "h",
  port: "10809",
  export: "disks.v.1",
  hasTls: false,
  isReadOnly: false,
  link: "/dev/disk/by-id/nbd-disks.v.1",
};

const exec: Exec = async (file, args) => {
  asked.push([file, ...args]);
  return { stdout: answers(file, args), stderr: "" };
};

function contextWith(nbd: object): ExecutorContext {
  return {
    config: new ScopedConfig([new ConfigTree({ nbd })]),
    libFolder: join(folder, "lib"),
    hostName: "here",
    isRoot: true,
    exec,
    places: { sys: join(folder, "sys"), dev: join(folder, "dev") },
  };
}

const programs = () => ({ client: join(folder, "nbd-client"), starter: join(folder, "starter") });
const kernelWay = (nbd: object = {}) => new KernelWay(contextWith(nbd), programs());

/** A device as the kernel shows it; without a process it is not connected. */
function showDevice(name: string, pid: string, sectors: string): void {
  const at = join(folder, "sys/class/block", name);
  mkdirSync(at, { recursive: true });
  writeFileSync(join(at, "size"), `${sectors}\n`);
  if (pid === "") rmSync(join(at, "pid"), { force: true });
  else writeFileSync(join(at, "pid"), `${pid}\n`);
}

const pidFileIn = (args: readonly string[]): string => args[args.indexOf("--pidfile") + 1] ?? "";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ways-"));
  place = placeOfExport(join(folder, "lib"), door.export);
  for (const path of [place.folder, join(folder, "sys/module/nbd"), join(folder, "dev")])
    mkdirSync(path, { recursive: true });
  for (const path of [...Object.values(programs()), join(folder, "dev/nbd0")])
    writeFileSync(path, "");
  showDevice("nbd0", "4711", "2048");
  showDevice("nbd1", "", "0");
  asked = [];
  answers = () => "";
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("what nbd-client says", () => {
  it("is read where it names a device, and nowhere else", () => {
    assert.equal(parseConnected("Negotiation: ..size = 64MB\nConnected /dev/nbd12"), "nbd12");
    assert.equal(parseConnected("Negotiation: ..size = 64MB"), undefined);
    assert.equal(parseConnected("not Connected /dev/nbd0"), undefined);
    assert.equal(parseConnected("Connected /dev/sda"), undefined);
  });
});

describe("the choice", () => {
  const chosen = async (client: string | undefined, missing: string | undefined) => {
    const context = contextWith(client === undefined ? {} : { client });
    const kernel = Object.assign(kernelWay(), { missing: async () => missing });
    const ways = await chooseWays(context, [kernel, fuseWay(context)], deadline());
    return ways.map(({ name }) => name);
  };

  it("is the kernel's client where there is one, with the other way behind it", async () => {
    assert.deepEqual(await chosen(undefined, undefined), ["kernel", "daemon"]);
    assert.deepEqual(await chosen("auto", undefined), ["kernel", "daemon"]);
    assert.deepEqual(await chosen("auto", "no module"), ["daemon"]);
  });

  it("is what the configuration says, or an error that says why not", async () => {
    assert.deepEqual(await chosen("daemon", undefined), ["daemon"]);
    assert.deepEqual(await chosen("Kernel", undefined), ["kernel"]);
    await assert.rejects(chosen("kernel", "no module"), {
      code: "failed-precondition",
      message: /nbd\.client is kernel, and this host cannot .*: no module/,
    });
    await assert.rejects(chosen("ioctl", undefined), {
      code: "invalid-argument",
      message: /must be auto, kernel or daemon/,
    });
  });
});

describe("the kernel's client", () => {
  it("is there with its programs, the module and the devices", async () => {
    assert.equal(await kernelWay().missing(deadline()), undefined);
    assert.deepEqual(asked, [], "nothing has to be loaded");
    rmSync(join(folder, "dev/nbd0"));
    assert.match((await kernelWay().missing(deadline())) ?? "", /container/);
    rmSync(programs().client);
    assert.match((await kernelWay().missing(deadline())) ?? "", /package nbd-client/);
  });

  it("has its module loaded, if that can be", async () => {
    const module = join(folder, "sys/module/nbd");
    rmSync(module, { recursive: true });
    answers = (file, args) => {
      throw new CommandError(file, args, { exitCode: 1 }, undefined);
    };
    assert.match((await kernelWay().missing(deadline())) ?? "", /no NBD/);
    answers = () => {
      mkdirSync(module);
      return "";
    };
    assert.equal(await kernelWay().missing(deadline()), undefined);
    assert.deepEqual(asked.at(-1), ["modprobe", "--quiet", "nbd"]);
  });

  it("leaves the choice of the device to the kernel, and knows it again by its process", async () => {
    const way = kernelWay();
    answers = (_file, args) => {
      writeFileSync(pidFileIn(args), "815\n");
      showDevice("nbd1", "815", "2048");
      return "Connected /dev/nbd1";
    };
    await way.up(place, door, deadline());
    assert.deepEqual(await way.devices(place), ["nbd1"]);
    const [[, ...args] = []] = asked;
    assert.ok(!args.some((one) => /\/dev\/nbd/.test(one)), "no device is asked for");
    assert.ok(!args.includes("-nonetlink"));
    showDevice("nbd1", "816", "2048");
    assert.deepEqual(await way.devices(place), [], "somebody else's by now");
  });

  it("does not know a device by what was noted before the host was restarted", async () => {
    writeFileSync(join(place.folder, "client.8f2c"), "4711\n");
    assert.deepEqual(await kernelWay().devices(place), []);
  });

  it("gives a device back that cannot be known again, and is closed", async () => {
    answers = (_file, args) => {
      if (args[0] === "-d") {
        showDevice("nbd1", "", "0");
        return "";
      }
      // As in a container, whose numbers are others.
      writeFileSync(pidFileIn(args), "7\n");
      showDevice("nbd1", "90007", "2048");
      return "Connected /dev/nbd1";
    };
    await assert.rejects(kernelWay().up(place, door, deadline()), WayClosed);
    assert.deepEqual(asked.at(-1), [programs().client, "-d", "/dev/nbd1"]);
    assert.equal(existsSync(join(folder, "sys/class/block/nbd1/pid")), false);
  });

  it("is closed, with its words, when nbd-client fails", async () => {
    answers = (file, args) => {
      const stderr = "Error: Couldn't resolve the nbd netlink family\n\nExiting.";
      throw new CommandError(file, args, { exitCode: 1, stderr }, undefined);
    };
    await assert.rejects(kernelWay().up(place, door, deadline()), (error) => {
      assert.ok(error instanceof WayClosed);
      assert.match(error.message, /disks\.v\.1: Error: Couldn't resolve the nbd netlink family/);
      return true;
    });
  });

  it("does not say that a device is free before the kernel does", async () => {
    const way = kernelWay();
    answers = () => "";
    const brief = new Deadline({ timeoutMs: 100, signal: new AbortController().signal });
    await assert.rejects(way.down("nbd0", brief), {
      code: "failed-precondition",
      message: /\/dev\/nbd0 was disconnected.*a program has it open/,
    });
    answers = () => {
      setTimeout(() => showDevice("nbd0", "", "0"), 50);
      return "";
    };
    await way.down("nbd0", deadline());
    assert.equal(readFileSync(join(folder, "sys/class/block/nbd0/size"), "utf8"), "0\n");
  });

  it("serves a disk that is read-only as such, over its socket alone", () => {
    const args = kernelWay()
      .argumentsFor(place, { ...door, isReadOnly: true })
      .join(" ");
    assert.match(args, /addr\.type=unix,addr\.path=\S+\/nbd\.sock/);
    assert.match(args, /writable=off/);
  });

  it("says whether the size that the export has is the device's already", async () => {
    let bytes = 1024 * 1024;
    const monitor = createServer((socket) => {
      createInterface({ input: socket }).on("line", (line) => {
        const { execute, id } = JSON.parse(line) as { execute: string; id: number };
        const nodes = [{ "node-name": "look", image: { "virtual-size": bytes } }];
        const isQuery = execute === "query-named-block-nodes";
        socket.write(`${JSON.stringify({ id, return: isQuery ? nodes : {} })}\n`);
      });
    });
    await new Promise<void>((resolve) => monitor.listen(place.monitor, resolve));
    try {
      assert.equal(await kernelWay().grow(place, door, "nbd0"), true);
      bytes *= 2;
      assert.equal(await kernelWay().grow(place, door, "nbd0"), false);
    } finally {
      monitor.close();
    }
  });
});
