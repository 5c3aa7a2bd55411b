import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { ConfigTree, ScopedConfig } from "@libstorage/model";
import type { Exec } from "../executor/exec.js";
import { loopTransport } from "./loop.js";
import type { BlockTransport } from "./transport.js";

const PATH = "/images/v.raw";
const ATTACHED = { volumeID: "v", device: PATH, fields: { path: PATH, format: "raw" } };

describe("a loop device that is told to go", () => {
  let sys: string;
  let told: string[];
  /** What the kernel does when it is told. */
  let onDetach: () => void;
  let transport: BlockTransport;

  const device = (): string => join(sys, "class/block/loop900");
  const limits = (timeoutMs: number) => ({ timeoutMs, signal: new AbortController().signal });
  const exec: Exec = async (file, args) => {
    told.push([file, ...args].join(" "));
    onDetach();
    return { stdout: "", stderr: "" };
  };

  beforeEach(async () => {
    sys = await mkdtemp(join(tmpdir(), "loop-"));
    told = [];
    await mkdir(join(device(), "loop"), { recursive: true });
    await writeFile(join(device(), "loop/backing_file"), `${PATH}\n`);
    await writeFile(join(device(), "loop/offset"), "0\n");
    // No device of this host has such a number.
    await writeFile(join(device(), "dev"), "7:40000\n");
    const config = new ScopedConfig([new ConfigTree({})]);
    const own = { config, libFolder: sys, hostName: "h", isRoot: true, exec, places: { sys } };
    transport = loopTransport(own);
  });
  afterEach(() => rm(sys, { recursive: true }));

  it("is waited for while the kernel puts that off", async () => {
    let isGone = false;
    onDetach = () =>
      void setTimeout(() => {
        isGone = true;
        void rm(join(device(), "loop"), { recursive: true });
      }, 200);
    await transport.disconnect(ATTACHED, limits(20_000));
    assert.ok(isGone);
    assert.deepEqual(told, ["losetup --detach /dev/loop900"]);
  });

  it("has not left the host when it stays, which is said", async () => {
    onDetach = () => {};
    await assert.rejects(transport.disconnect(ATTACHED, limits(300)), {
      code: "failed-precondition",
      message: /volume v has not left this host: \/dev\/loop900 .* try again/,
    });
  });
});
