import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { constants, existsSync } from "node:fs";
import { access, copyFile, mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { spawn } from "node:child_process";
import { openClient } from "@libstorage/client";
import { ended, LSX, makeFolder, startServer } from "./fixture.js";
import type { Ran } from "./fixture.js";

const USAGE = /^usage: lsx DRIVER supported\n/;
const DEVICES = "vfs=/dev/xvda::,/dev/xvdb::,/dev/xvdc::,/dev/xvdd::";

/** Section 17.1 of the contract. */
describe("the program lsx", () => {
  let folder: string;
  let program: string;
  before(async () => {
    folder = await makeFolder();
    // As a client has it that fetched it: alone, in a folder of its own.
    await mkdir(join(folder, "lib"));
    program = join(folder, "lib", "lsx-linux");
    await copyFile(LSX, program);
  });
  after(() => rm(folder, { recursive: true }));

  async function lsx(words: string, env: NodeJS.ProcessEnv = {}): Promise<Ran> {
    const args = words.split(" ").filter(Boolean);
    const root = { VFS_ROOT: join(folder, "vfs"), PATH: process.env["PATH"] };
    return ended(spawn(program, args, { env: { ...root, ...env } }));
  }

  const seed = Buffer.from(JSON.stringify(hostname())).toString("base64");
  const rows: readonly (readonly [words: string, code: number, stdout: string, stderr?: RegExp])[] =
    [
      ["vfs supported", 0, "63"],
      ["vfs SUPPORTED", 0, "63"],
      ["VFS instanceid", 0, `vfs=,,${seed}`],
      ["vfs instanceID", 0, `vfs=,,${seed}`],
      ["vfs nextDevice", 0, "/dev/xvda\n"],
      ["vfs localDevices 0", 0, DEVICES],
      ["vfs localDevices deep", 0, DEVICES],
      ["vfs localDevices nonsense", 0, DEVICES],
      ["vfs wait quick /DEV/XVDB 1s", 0, DEVICES],
      ["vfs wait 0 /dev/xvdz 600ms", 255, DEVICES],
      ["vfs wait 0 /dev/xvda soon", 1, "", /^error: invalid duration soon\n$/],
      ["vfs mounts", 2, ""],
      ["vfs localDevices", 1, "", USAGE],
      ["vfs wait 0 x", 1, "", USAGE],
      ["vfs mount /dev/xvda", 1, "", USAGE],
      ["vfs umount", 1, "", USAGE],
      ["vfs fly", 1, "", USAGE],
      ["vfs", 1, "", USAGE],
      ["", 1, "", USAGE],
      ["nope supported", 1, "", /^error: invalid executor name\n$/],
      ["mock supported", 0, "15"],
      [
        "mock localDevices 0",
        0,
        "mock=/dev/xvda::/var/log,/dev/xvdb::/home,/dev/xvdc::/net/share,/dev/xvdd::/var/lib/backup",
      ],
      ["mock nextDevice", 0, "/dev/xvde\n"],
      ["mock mount /dev/xvda /tmp/x", 2, ""],
      ["mock umount /tmp/x", 2, ""],
    ];
  for (const [words, code, stdout, stderr = /^$/] of rows)
    it(`lsx ${words} → ${code}`, async () => {
      const ran = await lsx(words);
      assert.equal(ran.code, code, ran.stderr);
      assert.equal(ran.stdout, stdout);
      assert.match(ran.stderr, stderr);
    });

  it("gives the id with a region when the environment says so", async () => {
    const { stdout } = await lsx("vfs instanceID", { VFS_INSTANCEID_USE_FIELDS: "true" });
    assert.equal(stdout, `vfs=${hostname()},region=east`);
  });

  it("names a host as the recorded client of the reference does (trace go-client-0.6.2)", async () => {
    const { stdout } = await lsx("vfs instanceID", { VFS_INSTANCEID_NAME: "vm" });
    assert.equal(stdout, "vfs=,,InZtIg==");
  });

  it("reads the device file", async () => {
    const root = join(folder, "own");
    await mkdir(root);
    await writeFile(join(root, "dev"), "/dev/xvda=/mnt/a\n/dev/xvdb=\n\n/dev/xvdc\n");
    const env = { VFS_ROOT: root };
    assert.equal((await lsx("vfs nextDevice", env)).stdout, "/dev/xvdc\n");
    assert.equal(
      (await lsx("vfs localDevices 0", env)).stdout,
      "vfs=/dev/xvda::/mnt/a,/dev/xvdb::,/dev/xvdc::",
    );
    await writeFile(join(root, "dev"), "/dev/xvda=/mnt/a\n");
    const none = await lsx("vfs nextDevice", env);
    assert.equal(none.code, 1);
    assert.equal(none.stderr, "error: error getting nextDevice: no available devices\n");
  });

  it("makes the folder of a mount, and never removes what is in it", async () => {
    const path = join(folder, "mnt", "v");
    assert.deepEqual(await lsx(`vfs mount -l label -o rw /dev/xvda ${path}`), {
      code: 0,
      stdout: `${path}\n`,
      stderr: "",
    });
    assert.ok((await stat(path)).isDirectory());
    await writeFile(join(path, "f"), "x");
    assert.equal((await lsx(`vfs umount ${path}`)).code, 0);
    assert.equal(await readFile(join(path, "f"), "utf8"), "x");
    await rm(join(path, "f"));
    assert.equal((await lsx(`vfs unmount ${path}`)).stdout, `${path}\n`);
    assert.ok(!existsSync(path));
    const gone = await lsx(`vfs umount ${path}`);
    assert.equal(gone.code, 1);
    assert.match(gone.stderr, /^error: error getting umount: ENOENT/);
  });

  it("is one file that runs anywhere, and is what the server serves", async () => {
    await access(LSX, constants.X_OK);
    assert.equal((await stat(LSX)).mode & 0o777, 0o755);
    const text = await readFile(LSX, "utf8");
    assert.ok(text.startsWith("#!/usr/bin/env node\n"));
    // In a folder of ES modules it is taken for one, and runs just so.
    const modules = join(folder, "modules");
    await mkdir(modules);
    await writeFile(join(modules, "package.json"), '{"type":"module"}');
    await copyFile(LSX, join(modules, "lsx-linux"));
    const ran = await ended(spawn(join(modules, "lsx-linux"), ["vfs", "supported"]));
    assert.equal(ran.stdout, "63", ran.stderr);
    const server = await startServer();
    const client = openClient({ host: server.host });
    const { "lsx-linux": info } = await client.executors({}, undefined, {});
    assert.equal(info?.md5checksum, createHash("md5").update(text).digest("hex"));
    client.close();
    await server.close();
  });
});
