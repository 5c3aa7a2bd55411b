/** Portals over a folder that stands in for configfs. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import type { OpContext } from "../../core/driver.js";
import { openFiles } from "../../core/files.js";
import type { Files } from "../../core/files.js";
import { SILENT } from "../../core/log.js";
import type { IscsiDoor } from "../iscsi/door.js";
import { Targets } from "./targets.js";

const IQN = "iqn.2026-01.io.libstorage:x:y";
const INITIATOR = "iqn.1993-08.org.debian:01:a";
const PORTAL = { address: "10.0.0.1", port: 3260 };
const NP = `iscsi/${IQN}/tpgt_1/np/10.0.0.1:3260`;

function doorOf(lun: number, iser: boolean): IscsiDoor {
  const own = { iqn: IQN, initiator: INITIATOR, lun, serial: "s", wwid: "36001405" };
  return { ...own, exporter: "iscsi-lio", portals: [PORTAL], chap: "none", iser } as IscsiDoor;
}

describe("a portal with iSER", () => {
  let root: string;
  /** What was written to any `iser`. */
  let written: string[];
  /** What the kernel answers to that. */
  let refusal: string | undefined;

  const at = (path: string): string => join(root, path);
  const iser = (): string => readFileSync(at(`${NP}/iser`), "utf8");

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), "libstorage-targets-"));
    mkdirSync(at("core/iblock_1/b"), { recursive: true });
    mkdirSync(at("iscsi"));
    written = [];
    refusal = undefined;
  });
  afterEach(() => rmSync(root, { recursive: true }));

  /** The kernel makes an object's attributes with its folder. */
  const files: Files = {
    ...openFiles(),
    async makeFolder(path) {
      if (existsSync(path)) return;
      mkdirSync(path, { recursive: true });
      if (path.endsWith(NP)) writeFileSync(join(path, "iser"), "0\n");
    },
    async writeAttribute(path, value) {
      if (path.endsWith("/iser")) {
        written.push(value);
        if (refusal !== undefined) throw Object.assign(new Error("refused"), { code: refusal });
      }
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, `${value}\n`);
    },
  };
  const admit = async (lun: number, isIser: boolean): Promise<void> => {
    const { signal } = new AbortController();
    const exec = () => assert.fail("no command is needed");
    const context: OpContext = { exec, signal, files, log: SILENT, progress: () => {} };
    const backstore = { backstore: at("core/iblock_1/b"), backstoreName: "b" };
    const door = doorOf(lun, isIser);
    await new Targets(root).admit(
      { door, credentials: undefined, listening: [PORTAL], ...backstore },
      context,
    );
  };

  it("has it once it is made, and is not told again", async () => {
    await admit(1, true);
    await admit(1, true);
    assert.equal(iser(), "1\n");
    assert.deepEqual(written, ["1"]);
  });

  it("gets it when its maker died before it was set, or wanted none", async () => {
    await admit(1, false);
    assert.equal(iser(), "0\n");
    assert.deepEqual(written, []);
    await admit(2, true);
    assert.equal(iser(), "1\n");
  });

  it("keeps it for those who use it when another wants none", async () => {
    await admit(1, true);
    await admit(2, false);
    assert.equal(iser(), "1\n");
    assert.deepEqual(written, ["1"]);
  });

  it("lets nobody in by TCP instead when the kernel refuses it, and says what it needs", async () => {
    refusal = "EPROTONOSUPPORT";
    await assert.rejects(admit(1, true), {
      code: "failed-precondition",
      message: /10\.0\.0\.1:3260 with iSER \(EPROTONOSUPPORT\).*modprobe ib_isert/,
    });
    assert.ok(!existsSync(at(`iscsi/${IQN}/tpgt_1/enable`)), "the target does not answer");
    refusal = undefined;
    await admit(1, true);
    assert.equal(iser(), "1\n");
  });
});
