/** iscsi-tgt on this host, over loopback, with initiators in user space. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createServer } from "node:net";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, beforeEach, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { AttachmentRecord } from "@libstorage/server";
import { makeScratch } from "../faults/folders.js";
import {
  capacity,
  discover,
  freePort,
  inquire,
  io,
  startWriter,
  tgtMissing,
} from "./iscsi-client.js";
import type { Identity } from "./iscsi-client.js";
import { StorageSession } from "./storage-session.js";
import type { Holder } from "./storage-session.js";

const MIB = 1024 ** 2;
const B: Identity = { initiator: "iqn.2026-01.local.test:b" };
const C: Identity = { initiator: "iqn.2026-01.local.test:c" };
const HOST_B: Holder = { id: "b", initiatorName: B.initiator };
const HOST_C: Holder = { id: "c", initiatorName: C.initiator };
const PASSWORDS = { user: "host", secret: "initiator-secret" };
const BOTH = { ...PASSWORDS, targetUser: "storage", targetSecret: "target-secret-1" };

const scratch = makeScratch("iscsi-tgt");
let folder = "";
let portal = "";
let session: StorageSession;

/** The processes of tgtd of this test. */
function daemons(): number[] {
  return readdirSync("/proc").flatMap((pid) => {
    try {
      if (readFileSync(`/proc/${pid}/comm`, "utf8") !== "tgtd\n") return [];
      return readFileSync(`/proc/${pid}/environ`, "utf8").includes(folder) ? [Number(pid)] : [];
    } catch {
      return [];
    }
  });
}

async function open(config: object = {}, isShareable = false): Promise<StorageSession> {
  session = await StorageSession.open({
    folder,
    kind: "file",
    exporter: "iscsi-tgt",
    config: { portals: [portal], chap: { mode: "none" }, ...config },
    isShareable,
  });
  return session;
}

function secretsFile(text: string, mode = 0o600): string {
  const path = join(folder, "chap.yml");
  writeFileSync(path, text, { mode });
  return path;
}

function socket(): string {
  const [name = ""] = readdirSync(join(folder, "lib/tgt")).filter((one) => one.endsWith(".0"));
  return join(folder, "lib/tgt", name.slice(0, -2));
}

/** tgtadm by hand. */
function tgtadm(...args: string[]): string {
  const env = { ...process.env, TGT_IPC_SOCKET: socket() };
  return execFileSync("tgtadm", ["--lld", "iscsi", ...args], { env, encoding: "utf8" });
}

const targets = (): string => tgtadm("--op", "show", "--mode", "target");

async function attached(holder = HOST_B, sizeBytes = 8 * MIB) {
  const id = await session.create(sizeBytes);
  return { id, attachment: await session.attach(id, holder) };
}

const raw = (id: string): Buffer => readFileSync(join(folder, "plain", `${id}.raw`));

async function until(what: string, ask: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + 20_000;
  while (!(await ask())) {
    if (Date.now() > end) assert.fail(`waited in vain until ${what}`);
    await sleep(20);
  }
}

describe("iscsi-tgt", { skip: tgtMissing(), timeout: 300_000 }, () => {
  let count = 0;
  beforeEach(async () => {
    folder = join(scratch.path, String(count++));
    mkdirSync(folder);
    portal = `127.0.0.1:${await freePort()}`;
  });
  afterEach(async () => {
    for (const { id } of session.service.inventory.volumes.all()) await session.remove(id);
    await session.close();
    assert.deepEqual(daemons(), [], "a tgtd is left");
  });
  after(() => {
    // Of tests that failed.
    folder = scratch.path;
    for (const pid of daemons()) process.kill(pid, "SIGKILL");
    return scratch.remove();
  });

  it("carries a volume, known by its serial and name", async () => {
    await open();
    const { id, attachment } = await attached();
    const { serial = "", wwid, lun, chap } = attachment.fields ?? {};
    assert.deepEqual([lun, chap], ["1", "none"]);
    assert.equal(attachment.deviceName, `/dev/disk/by-id/wwn-0x${wwid?.slice(1)}`);
    assert.match((await inquire(attachment, B, 0x80)).stdout, new RegExp(serial));
    assert.equal((await io(attachment, B, "write -P 7 0 1M", "flush")).code, 0);
    assert.ok(
      raw(id)
        .subarray(0, MIB)
        .every((byte) => byte === 7),
    );
    assert.equal((await io(attachment, B, "read -P 7 0 1M")).code, 0);
    assert.deepEqual(await session.sessions(), []);
  });

  it("lets in nobody else, and shows nobody else what there is", async () => {
    await open();
    const { attachment } = await attached();
    assert.deepEqual(await discover(portal, B.initiator), [attachment.fields?.["iqn"]]);
    assert.deepEqual(await discover(portal, C.initiator), []);
    assert.match((await inquire(attachment, C)).stderr, /Target not found\(515\)/);
  });

  for (const [mode, tries] of [
    ["none", [[{}, 0]]],
    [
      "one-way",
      [
        [{}, 513],
        [{ ...PASSWORDS, secret: "wrong-secret-1" }, 513],
        [PASSWORDS, 0],
      ],
    ],
    [
      "mutual",
      [
        [{}, 513],
        [{ ...BOTH, secret: "wrong-secret-1" }, 513],
        // Here it is the initiator that refuses.
        [{ ...BOTH, targetSecret: "wrong-secret-2" }, 1],
        [BOTH, 0],
        // It is the initiator's choice whether the target must show itself: tgtd cannot demand to be asked.
        [PASSWORDS, 0],
        [{ ...PASSWORDS, secret: "wrong-secret-1" }, 513],
      ],
    ],
  ] as const)
    it(`checks passwords: ${mode}`, async () => {
      const file = secretsFile(JSON.stringify([{ initiator: "*", ...BOTH }]));
      await open({ chap: { mode, secretsFile: file } });
      const { attachment } = await attached();
      for (const [passwords, status] of tries) {
        const { code, stderr } = await inquire(attachment, { ...B, ...passwords });
        assert.equal(code === 0, status === 0, `${JSON.stringify(passwords)}: ${stderr}`);
        if (status > 1) assert.match(stderr, new RegExp(`\\(${status}\\)`));
      }
      const arguments_ = session.storage.journal.since(0);
      assert.doesNotMatch(JSON.stringify([...arguments_]), /secret-|-secret/, "in the journal");
    });

  it("never leaves a target open because its account was changed or removed", async () => {
    const file = secretsFile(JSON.stringify([{ initiator: "*", ...PASSWORDS }]));
    await open({ chap: { mode: "one-way", secretsFile: file } });
    const one = await attached();
    const two = await attached(HOST_C);
    const next = { user: "host", secret: "another-secret" };
    secretsFile(JSON.stringify([{ initiator: "*", ...next }]));
    const three = await attached();
    for (const [{ attachment }, who] of [
      [one, B],
      [two, C],
      [three, B],
    ] as const) {
      assert.equal((await inquire(attachment, who)).code, 10, "without a password");
      assert.equal((await inquire(attachment, { ...who, ...PASSWORDS })).code, 10, "the old one");
      assert.equal((await inquire(attachment, { ...who, ...next })).code, 0, "the new one");
    }
    await session.detach(one.id, HOST_B);
    assert.equal((await inquire(two.attachment, C)).code, 10, "still bound there");
    await session.detach(two.id, HOST_C);
    await session.detach(three.id, HOST_B);
    assert.doesNotMatch(tgtadm("--op", "show", "--mode", "account"), /host/);
  });

  it("refuses a file of secrets that is not in order", async () => {
    const entry = { initiator: "*", ...BOTH };
    const wrong: readonly [string, number, RegExp][] = [
      [JSON.stringify([entry]), 0o644, /can be read by others \(mode 644\); chmod 600/],
      [JSON.stringify([{ ...entry, initiator: C.initiator }]), 0o600, /no entry for the initiator/],
      [JSON.stringify([{ ...entry, secret: "short" }]), 0o600, /0\.secret must be 12 to 255/],
      [JSON.stringify([{ ...entry, targetSecret: entry.secret }]), 0o600, /must differ/],
      [JSON.stringify([{ ...entry, targetUser: entry.user }]), 0o600, /two secrets/],
      [JSON.stringify([{ initiator: "*", ...PASSWORDS }]), 0o600, /no targetUser/],
      ["- secret: [", 0o600, /is no YAML/],
    ];
    const file = secretsFile("");
    await open({ chap: { mode: "mutual", secretsFile: file } });
    const id = await session.create();
    for (const [text, mode, message] of wrong) {
      execFileSync("rm", [file]);
      secretsFile(text, mode);
      await assert.rejects(session.attach(id, HOST_B), (error: Error) => {
        assert.match(error.message, message);
        assert.doesNotMatch(error.message, /initiator-secret|target-secret/);
        return true;
      });
      assert.deepEqual(session.service.volume(id).attachments, []);
    }
  });

  it("cuts a writer off before it answers, for good", async () => {
    await open();
    const { id, attachment } = await attached();
    const writer = startWriter(attachment, B, 8 * MIB);
    await until("it writes", () => writer.written > 200);
    assert.equal((await session.sessions())[0]?.peer, B.initiator);
    await session.attach(id, HOST_C, true);
    const atAnswer = raw(id);
    assert.deepEqual(await session.sessions(), []);
    const { written } = writer;
    await sleep(500);
    assert.equal(writer.written, written, "it still writes");
    assert.ok(raw(id).equals(atAnswer), "a write arrived after the answer");
    // It goes on asking for its target; when its host gets the volume again, that is another one.
    await session.detach(id, HOST_C);
    const again = await session.attach(id, HOST_B);
    assert.notEqual(again.fields?.["iqn"], attachment.fields?.["iqn"]);
    await sleep(1500);
    assert.ok(raw(id).equals(atAnswer), "an old session came to a name that was used again");
    await writer.end();
  });

  it("shows a bigger volume, and a client with open files goes on", async () => {
    await open();
    const { id, attachment } = await attached();
    const writer = startWriter(attachment, B, 8 * MIB);
    await until("it writes", () => writer.written > 50);
    await session.expand(id, 16 * MIB);
    assert.equal(await capacity(attachment, B), 16 * MIB);
    const { written } = writer;
    await until("it goes on", () => writer.written > written + 50);
    await writer.end();
  });

  it("makes everything again when tgtd was killed", async () => {
    const file = secretsFile(JSON.stringify([{ initiator: "*", ...BOTH }]));
    await open({ chap: { mode: "mutual", secretsFile: file } });
    const { attachment } = await attached();
    const who = { ...B, ...BOTH };
    assert.equal((await inquire(attachment, who)).code, 0);
    for (const pid of daemons()) process.kill(pid, "SIGKILL");
    await until("it is there again", async () => (await inquire(attachment, who)).code === 0);
    assert.equal((await inquire(attachment, B)).code, 10, "and asks for passwords");
  });

  it("finds its exports again at the next start, and withdraws what no record names", async () => {
    await open();
    const { id, attachment } = await attached();
    await session.close();
    assert.equal((await inquire(attachment, B)).code, 0, "what is exported stays exported");
    const [owner] = /:[\da-f]{10}:/.exec(attachment.fields?.["iqn"] ?? "") ?? [];
    const stale = `iqn.2026-01.io.libstorage${owner}plain:plain-099:1-00000000`;
    const foreign = "iqn.2026-01.local.foreign:disk";
    tgtadm("--op", "new", "--mode", "target", "--tid", "7", "-T", stale);
    tgtadm("--op", "new", "--mode", "target", "--tid", "8", "-T", foreign);
    await open();
    assert.equal((await inquire(attachment, B)).code, 0);
    assert.doesNotMatch(targets(), new RegExp(stale));
    assert.match(targets(), new RegExp(foreign));
    await session.remove(id);
    assert.match(targets(), new RegExp(foreign));
    tgtadm("--op", "delete", "--mode", "target", "--tid", "8");
  });

  it("does not listen everywhere when its portal is busy", async () => {
    const server = createServer();
    const [host = "", port] = portal.split(":");
    await new Promise<void>((resolve) => server.listen(Number(port), host, resolve));
    await open();
    const id = await session.create();
    await assert.rejects(session.attach(id, HOST_B), /cannot listen on 127\.0\.0\.1:\d+.*ended/);
    assert.deepEqual(daemons(), []);
    await new Promise((resolve) => server.close(resolve));
    await session.attach(id, HOST_B);
  });

  it("carries a volume over IPv6, and listens nowhere else", async () => {
    portal = `[::1]:${await freePort()}`;
    await open();
    const { id, attachment } = await attached();
    assert.equal(attachment.fields?.["portals"], portal);
    assert.equal(tgtadm("--op", "show", "--mode", "portal").trim(), `Portal: ${portal},1`);
    assert.equal((await io(attachment, B, "write -P 5 0 1M", "flush")).code, 0);
    assert.equal(raw(id)[MIB - 1], 5);
    assert.equal((await inquire(attachment, C)).code, 10);
    await session.attach(id, HOST_C, true);
    assert.equal((await inquire(attachment, B)).code, 10, "cut off");
  });

  it("refuses what cannot work, and says why", async () => {
    portal = "192.0.2.77:3260";
    await open();
    const id = await session.create();
    await assert.rejects(session.attach(id, HOST_B), /has no address 192\.0\.2\.77; it has/);
    await assert.rejects(session.attach(id, { id: "b" }), /tells no iSCSI initiator name/);
    for (const initiatorName of ["iqn.b", "iqn.2026-13.org.x", "naa.12", "iqn.2026-01.-"])
      await assert.rejects(
        session.attach(id, { id: "b", initiatorName }),
        /is none; write one such as|tells nothing of that host/,
      );
    await session.remove(id);
    await session.close();
    portal = `127.0.0.1:${await freePort()}`;
    await open();
    const one = await attached();
    const two = await session.create();
    await assert.rejects(
      session.attach(two, { id: "clone", initiatorName: B.initiator }),
      /clone and b have one iSCSI initiator name/,
    );
    for (const holder of [{ id: "b2" }, { id: "b2", initiatorName: "iqn.b" }])
      await assert.rejects(session.attach(one.id, holder, true), { code: "invalid-argument" });
    assert.equal((await inquire(one.attachment, B)).code, 0, "nobody is cut off for them");
    // The same host under another id, as after it was installed anew.
    await session.attach(one.id, { id: "b2", initiatorName: B.initiator }, true);
    await session.detach(one.id, { id: "b2", initiatorName: B.initiator });
    execFileSync("mv", [join(folder, "plain", `${two}.raw`), join(folder, "aside")]);
    await assert.rejects(session.attach(two, HOST_B), /cannot be opened \(ENOENT\)/);
  });

  it("lets several hosts hold a shareable volume, and cuts one off alone", async () => {
    await open({}, true);
    const { id, attachment } = await attached();
    const other: AttachmentRecord = await session.attach(id, HOST_C);
    assert.equal(other.deviceName, attachment.deviceName);
    assert.equal((await io(attachment, B, "write -P 9 0 4k")).code, 0);
    assert.equal((await io(other, C, "read -P 9 0 4k")).code, 0);
    await session.detach(id, HOST_B);
    assert.equal((await io(other, C, "read -P 9 0 4k")).code, 0);
    assert.equal((await inquire(attachment, B)).code, 10);
  });

  it("cuts a holder off whose record was damaged", async () => {
    await open();
    const { id, attachment } = await attached();
    const other = await attached(HOST_C);
    await session.close();
    const record = join(folder, "plain", `${id}.json`);
    const text = readFileSync(record, "utf8");
    writeFileSync(record, text.replace(attachment.fields?.["iqn"] ?? "?", "iqn../../x"));
    await open();
    assert.match(
      (await session.warnings()).join(),
      /does not say how b reaches it: iqn is missing/,
    );
    await session.detach(id, HOST_B, true);
    assert.equal((await inquire(attachment, B)).code, 10);
    assert.equal((await inquire(other.attachment, C)).code, 0);
  });

  it("uses a tgtd that runs already, and leaves it running", async () => {
    const own = join(folder, "system");
    const env = { ...process.env, TGT_IPC_SOCKET: own };
    execFileSync("tgtd", ["--iscsi", `portal=${portal}`], { env });
    await until("it answers", () => existsSync(`${own}.0`));
    try {
      await open({ socket: own });
      const { id, attachment } = await attached();
      assert.equal((await inquire(attachment, B)).code, 0);
      await session.remove(id);
      await session.close();
      assert.notDeepEqual(daemons(), []);
    } finally {
      for (const pid of daemons()) process.kill(pid, "SIGKILL");
      await open();
    }
  });
});
