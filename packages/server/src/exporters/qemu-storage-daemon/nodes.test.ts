import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import type { Source } from "../../core/driver.js";
import { nodesOf } from "./nodes.js";

const file = (path: string, format: string): Source => ({ kind: "file", path, format });

/** The header of a qcow2 as old QEMUs wrote it. */
function qcow2(backing = ""): Buffer {
  const head = Buffer.alloc(512);
  head.writeUInt32BE(0x514649fb, 0);
  head.writeUInt32BE(2, 4);
  if (backing !== "") head.writeBigUInt64BE(200n, 8);
  head.writeUInt32BE(backing.length, 16);
  head.write(backing, 200);
  return head;
}

it("a writable raw image or device is locked, and an ISO file cannot be written", () => {
  for (const source of [file("/r", "raw"), { kind: "block", path: "/r" } as const]) {
    const [raw = {}] = nodesOf(source, "n", true);
    const { driver, ...child } = raw["file"] as Record<string, unknown>;
    assert.equal(driver, "blkdebug");
    assert.deepEqual(child["unshare-child-perms"], ["write", "resize"]);
  }
  assert.equal(nodesOf(file("/r", "iso"), "n", false)[0]?.["read-only"], true);
});

it("a qcow2's backing is always stated, layer by layer, and only layers beside it are followed", () => {
  const folder = mkdtempSync(join(tmpdir(), "nodes-"));
  const path = join(folder, "disk.qcow2");
  const node = () => nodesOf(file(path, "qcow2"), "n", true)[1] ?? {};
  try {
    writeFileSync(path, qcow2());
    assert.equal(node()["backing"], null);
    const [own] = nodesOf(file(path, "qcow2"), "n", true);
    assert.equal(own?.["node-name"], "n-file");
    assert.equal(
      node()["file"],
      "n-file",
      "not opened anew by its path when a layer is laid over it",
    );
    writeFileSync(path, qcow2("2.qcow2"));
    writeFileSync(join(folder, "2.qcow2"), qcow2("1.qcow2"));
    writeFileSync(join(folder, "1.qcow2"), qcow2());
    const upper = node()["backing"] as Record<string, unknown>;
    assert.equal(upper["read-only"], true);
    assert.deepEqual(upper["file"], { driver: "file", filename: join(folder, "2.qcow2") });
    assert.equal((upper["backing"] as Record<string, unknown>)["backing"], null);
    for (const foreign of [
      "/etc/passwd",
      "../1.qcow2",
      "nbd://127.0.0.1/x",
      "3.qcow2.x",
      "json:{}",
    ]) {
      writeFileSync(path, qcow2(foreign));
      assert.throws(node, { code: "failed-precondition", message: /names the backing file/ });
    }
    writeFileSync(path, qcow2("2.qcow2"));
    writeFileSync(join(folder, "2.qcow2"), qcow2("2.qcow2"));
    assert.throws(node, { code: "failed-precondition" }, "a chain that leads to itself");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it("what it cannot open is refused", () => {
  const refused = { code: "unimplemented" };
  assert.throws(() => nodesOf({ kind: "directory", path: "/r" }, "n", true), refused);
  assert.throws(() => nodesOf(file("/r", "vmdk"), "n", true), refused);
});
