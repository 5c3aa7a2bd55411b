import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { ConfigTree, ScopedConfig } from "@libstorage/model";
import { iscsiDoorOf } from "./door.js";
import { recordLines } from "./node-record.js";
import { credentialsFor } from "./secrets.js";

describe("passwords for targets", () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "secrets-"));
  });
  after(() => rm(folder, { recursive: true }));

  const door = (chap: string) =>
    iscsiDoorOf({
      volumeID: "v",
      device: "/dev/disk/by-id/wwn-0x1",
      fields: { iqn: "iqn.2026-01.x:y", portals: "10.0.0.1:3260", lun: "1", wwid: "3600", chap },
    });

  async function tryWith(text: string, chap = "one-way", mode = 0o600): Promise<unknown> {
    const file = join(folder, "secret");
    await writeFile(file, text);
    await chmod(file, mode);
    const config = { iscsi: { chap: { userName: "host", secretFile: file } } };
    return credentialsFor(new ScopedConfig([new ConfigTree(config)]), door(chap));
  }

  it("come from files, without the line's end", async () => {
    const own = { userName: "host", secret: "a secret=#1" };
    assert.deepEqual(await tryWith("a secret=#1\n"), { own });
    assert.deepEqual(await tryWith("a secret=#1\r\n"), { own });
    assert.equal(await tryWith("x", "none"), undefined);
  });

  it("are refused when others can read them or a record cannot hold them, and are in no error", async () => {
    for (const [text, mode] of [
      ["hidden", 0o644],
      ["hidden", 0o640],
      ["hidden\nnode.startup = automatic", 0o600],
      [" hidden", 0o600],
      ["", 0o600],
      ["hidden\x00", 0o600],
      ["hidden".repeat(50), 0o600],
    ] as const)
      await assert.rejects(tryWith(text, "one-way", mode), (error: Error & { code?: string }) => {
        assert.equal(error.code, "failed-precondition");
        assert.ok(!JSON.stringify([error.message, error]).includes("hidden"), error.message);
        return true;
      });
  });

  it("for mutual CHAP have the target show itself, always", async () => {
    const [own, target] = [join(folder, "own"), join(folder, "target")];
    await writeFile(own, "own-secret\n", { mode: 0o600 });
    await writeFile(target, "target-secret\n", { mode: 0o600 });
    const mutual = { userName: "storage", secretFile: target };
    const config = (chap: object) =>
      new ScopedConfig([
        new ConfigTree({ iscsi: { chap: { userName: "host", secretFile: own, ...chap } } }),
      ]);
    const times = { loginSeconds: 5, retries: 1, replacementSeconds: 120 };
    const linesFor = async (chap: string) =>
      Object.fromEntries(recordLines(await credentialsFor(config({ mutual }), door(chap)), times));
    const lines = await linesFor("mutual");
    assert.equal(lines["node.session.auth.authmethod"], "CHAP");
    assert.equal(lines["node.session.auth.username"], "host");
    assert.equal(lines["node.session.auth.username_in"], "storage");
    assert.equal(lines["node.session.auth.password_in"], "target-secret");
    assert.ok(!("node.session.auth.username_in" in (await linesFor("one-way"))));
    // With a half of it there is no login: open-iscsi would leave the target unasked.
    for (const half of [{}, { userName: "storage" }, { secretFile: target }])
      await assert.rejects(credentialsFor(config({ mutual: half }), door("mutual")), {
        code: "failed-precondition",
        message: /wants mutual CHAP, and iscsi.chap.mutual\.\w+ is not set/,
      });
    await writeFile(target, "");
    await assert.rejects(linesFor("mutual"), /must hold one line of 1 to/);
  });

  it("names the key that is missing", async () => {
    const empty = new ScopedConfig([new ConfigTree({})]);
    await assert.rejects(credentialsFor(empty, door("one-way")), /iscsi.chap.userName is not set/);
    await assert.rejects(tryWith("s", "mutual"), /iscsi.chap.mutual.userName is not set/);
  });
});
