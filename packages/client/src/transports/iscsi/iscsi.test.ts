import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { CommandError } from "../../executor/exec.js";
import type { Exec } from "../../executor/exec.js";
import { iscsiDoorOf, portalText } from "./door.js";
import { Iscsiadm, loginFailure } from "./iscsiadm.js";
import { clearEmptyRecords, editRecord, recordLines } from "./node-record.js";
import { parseScsiID } from "./scsi-id.js";

const FIELDS = {
  exporter: "iscsi-lio",
  portals: "10.0.0.1:3260,[fd00::1]:3261",
  iqn: "iqn.2026-01.io.libstorage:8364f56d57:disks:lvm-000:1-68cd3fc6",
  lun: "1",
  serial: "11111111222233334444555555555555",
  wwid: "36001405111111112222333344445555A",
  chap: "mutual",
};
const device = "/dev/disk/by-id/wwn-0x6001405111111112222333344445555a";
const door = (change: Record<string, string> = {}, link = device) =>
  iscsiDoorOf({ volumeID: "v", device: link, fields: { ...FIELDS, ...change } });

it("reads what an exporter says", () => {
  const { portals, wwid, isIser, chap } = door();
  assert.deepEqual(portals.map(portalText), ["10.0.0.1:3260", "[fd00::1]:3261"]);
  assert.equal(wwid, "36001405111111112222333344445555a");
  assert.equal(isIser, false);
  assert.equal(chap, "mutual");
  assert.equal(door({ iser: "true" }).isIser, true);
});

it("takes nothing that could become another argument, line or path", () => {
  const bad: readonly Record<string, string>[] = [
    { iqn: "iqn.2026-01.x\nnode.startup = automatic" },
    { iqn: "../../x" },
    { iqn: "" },
    { portals: "--help" },
    { portals: "10.0.0.1:3260 -u" },
    { portals: "10.0.0.1:70000" },
    { portals: "" },
    { lun: "-1" },
    { lun: "1;2" },
    { lun: "99999" },
    { chap: "maybe" },
    { serial: "a\nb" },
  ];
  for (const change of bad)
    assert.throws(() => door(change), { code: "failed-precondition" }, JSON.stringify(change));
  for (const link of ["/dev/sda", "/dev/disk/by-id/../../sda", "", "sda"])
    assert.throws(() => door({}, link), { code: "failed-precondition" }, link);
});

it("wants something by which the device can be recognised", () => {
  const { wwid: _, serial: __, ...fields } = FIELDS;
  assert.throws(() => iscsiDoorOf({ volumeID: "v", device, fields }), /neither wwid nor serial/);
});

// Recorded from open-iscsi 2.1.8, shortened.
const RECORD = `# BEGIN RECORD 2.1.8
node.name = iqn.2026-01.local.test:t1
node.tpgt = -1
node.startup = automatic
node.session.initial_login_retry_max = 4
node.session.auth.authmethod = CHAP
node.session.auth.username = old
node.session.auth.password = old-secret
node.session.auth.chap_algs = MD5
node.session.scan = auto
node.conn[0].address = 10.99.0.1
node.conn[0].timeo.login_timeout = 30
# END RECORD
`;
const TIMES = { loginSeconds: 7, retries: 1, replacementSeconds: 47 };

it("writes credentials into a record, once, and takes old ones out", () => {
  const own = { userName: "u", secret: "a = b # c" };
  const text = editRecord(RECORD, recordLines({ own }, TIMES));
  const lines = text.split("\n");
  assert.equal(lines.at(-2), "# END RECORD");
  assert.ok(lines.includes("node.session.auth.password = a = b # c"));
  for (const key of ["node.startup", "node.session.auth.password", "node.session.scan"])
    assert.equal(lines.filter((line) => line.startsWith(`${key} =`)).length, 1, key);
  assert.ok(lines.includes("node.startup = manual"));
  assert.ok(lines.includes("node.session.scan = manual"));
  // Else writes to a target that is gone would hang for the two minutes of the system's own record.
  const replacement = `node.session.timeo.replacement_timeout = ${TIMES.replacementSeconds}`;
  assert.ok(lines.includes(replacement));
  assert.ok(lines.includes("node.session.auth.chap_algs = MD5"));
  assert.ok(!text.includes("old-secret"));
  const none = editRecord(text, recordLines(undefined, TIMES));
  assert.ok(!/password|username/.test(none));
  assert.ok(none.includes("node.session.auth.authmethod = None"));
  assert.throws(() => editRecord("", recordLines(undefined, TIMES)));
});

it("reads what a device says of itself, and when it says nothing", () => {
  // Recorded from scsi_id of Debian 12, over a LUN of LIO, and over one that was unmapped.
  const text = `ID_SCSI=1
ID_VENDOR=LIO-ORG
ID_TYPE=disk
ID_SERIAL=360014051111111122223333444455555
ID_SERIAL_SHORT=60014051111111122223333444455555
ID_WWN=0x6001405111111112
ID_SCSI_SERIAL=11111111-2222-3333-4444-555555555555
`;
  assert.deepEqual(parseScsiID(text), {
    wwid: "360014051111111122223333444455555",
    serial: "11111111-2222-3333-4444-555555555555",
  });
  const unmapped = "ID_SCSI=1\nID_VENDOR=\nID_MODEL=\nID_TYPE=disk\n";
  assert.deepEqual(parseScsiID(unmapped), { wwid: "", serial: "" });
});

it("a record is made for iSER where the target has it, and for TCP where not", async () => {
  const [portal] = door().portals;
  assert.ok(portal);
  const commands: string[] = [];
  const exec: Exec = async (file, args) => {
    commands.push([file, ...args].join(" "));
    return { stdout: "", stderr: "" };
  };
  const limit = { signal: new AbortController().signal, timeoutMs: 1_000 };
  for (const iser of ["true", "false"])
    await new Iscsiadm(exec).makeRecord(door({ iser }), portal, limit);
  const node = `iscsiadm --mode node --targetname ${FIELDS.iqn} --portal 10.0.0.1:3260`;
  assert.deepEqual(commands, [`${node} --interface iser --op new`, `${node} --op new`]);
});

describe("a login", () => {
  const [portal] = door().portals;
  assert.ok(portal);
  const free = new AbortController().signal;
  /** Each login ends as the next of these exit codes says. @returns how many there were */
  const loginsWith = async (
    exitCodes: readonly number[],
    limit: { readonly timeoutMs: number; readonly perTryMs: number },
  ): Promise<number> => {
    let logins = 0;
    const exec: Exec = async (file, args) => {
      const exitCode = exitCodes[logins] ?? 0;
      logins += 1;
      if (exitCode === 0) return { stdout: "", stderr: "" };
      throw new CommandError(file, args, { exitCode, stderr: "said so" }, undefined);
    };
    const login = new Iscsiadm(exec).login(door(), portal, { signal: free, ...limit });
    await login.catch((error: unknown) => {
      assert.ok(error instanceof CommandError);
      assert.equal(error.exitCode, exitCodes[logins - 1]);
    });
    return logins;
  };

  it("is tried again when nobody answered, as long as there is time for it", async () => {
    assert.equal(await loginsWith([8, 11], { timeoutMs: 60_000, perTryMs: 10 }), 3);
    assert.equal(await loginsWith([8, 8], { timeoutMs: 60_000, perTryMs: 60_000 }), 1);
    assert.equal(await loginsWith([8, 24, 8], { timeoutMs: 60_000, perTryMs: 10 }), 2);
  });

  it("is not tried again when there was an answer", async () => {
    for (const exitCode of [4, 5, 19, 20, 24])
      assert.equal(await loginsWith([exitCode], { timeoutMs: 60_000, perTryMs: 10 }), 1);
  });
});

it("says what the exit codes of a login mean, and never a secret", () => {
  const [portal] = door().portals;
  assert.ok(portal);
  const failure = (exitCode: number, chap = "mutual"): Error & { code?: string } =>
    loginFailure(
      new CommandError("iscsiadm", ["--login"], { exitCode, stderr: "said so" }, undefined),
      door({ chap }),
      portal,
    ) as Error;
  assert.equal(failure(8).code, "deadline-exceeded");
  assert.match(failure(8).message, /no answer in time/);
  assert.match(failure(19).message, /could not prove itself: compare iscsi.chap.mutual/);
  assert.match(failure(19, "one-way").message, /may want mutual/);
  assert.match(failure(24).message, /compare iscsi.chap.userName/);
  assert.match(failure(24, "none").message, /wants a password/);
  assert.match(failure(20).message, /systemctl start iscsid/);
  assert.equal(failure(11).code, "deadline-exceeded");
  assert.match(failure(11).message, /took the connection, and the target did not answer/);
  assert.equal(failure(4).code, "unavailable");
  assert.match(failure(4).message, /nothing listens at the portal/);
  assert.match(failure(12).message, /modprobe iscsi_tcp/);
  assert.match(failure(18).message, /iscsid does not answer/);
  const named = [3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 18, 19, 20, 21, 22, 23, 24, 28, 29];
  for (const code of named) assert.doesNotMatch(failure(code).message, /exit code/);
  assert.match(failure(99).message, /exit code 99/);
  const other = new Error("x");
  assert.equal(loginFailure(other, door(), portal), other);
});

it("asks again when another target's record went away while iscsiadm read them", async () => {
  const limit = { signal: new AbortController().signal, timeoutMs: 1000 };
  const run = async (codes: number[], act: (tool: Iscsiadm) => Promise<void>): Promise<number> => {
    let calls = 0;
    const exec: Exec = async (file, args) => {
      calls += 1;
      const exitCode = codes.shift() ?? 0;
      if (exitCode > 0) throw new CommandError(file, args, { exitCode, stderr: "" }, undefined);
      return { stdout: "", stderr: "" };
    };
    await act(new Iscsiadm(exec));
    return calls;
  };
  const [portal] = door().portals;
  assert.ok(portal);
  assert.equal(
    await run([6, 21, 6], (tool) => tool.login(door(), portal, { ...limit, perTryMs: 60_000 })),
    4,
  );
  assert.equal(await run([6, 21], (tool) => tool.logout(door(), portal, limit)), 2);
  assert.equal(await run([6], (tool) => tool.makeRecord(door(), portal, limit)), 2);
  assert.equal(await run([6, 6], (tool) => tool.removeRecord(door(), portal, limit)), 3);
  await assert.rejects(
    run([24, 0], (tool) => tool.login(door(), portal, { ...limit, perTryMs: 60_000 })),
    { exitCode: 24 },
  );
});

it("takes away records of own targets that were left empty, and nothing else", async () => {
  const folder = await mkdtemp(join(tmpdir(), "iscsi-records-"));
  const record = async (iqn: string, text: string, ageMs: number): Promise<string> => {
    const at = join(folder, "nodes", iqn, "10.0.0.1,3260,1");
    await mkdir(at, { recursive: true });
    const file = join(at, "default");
    await writeFile(file, text);
    const time = new Date(Date.now() - ageMs);
    await utimes(file, time, time);
    return file;
  };
  const own = "iqn.2026-01.io.libstorage:x:lvm-000";
  const left = await record(`${own}:1`, "", 60_000);
  const kept = [
    await record(`${own}:2`, RECORD, 60_000),
    await record(`${own}:3`, "", 0),
    await record("iqn.2026-01.local.test:t1", "", 60_000),
  ];
  const places = { dev: "", sys: "", iscsi: [folder, join(folder, "none")] };
  await clearEmptyRecords(places, "iqn.2026-01.io.libstorage:");
  await assert.rejects(stat(left), { code: "ENOENT" });
  for (const file of kept) await stat(file);
  await rm(folder, { recursive: true });
});
