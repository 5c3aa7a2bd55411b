/** The client's commands for content, over folders at two servers with mutual TLS. */
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { BIN, run as runProgram } from "../client/fixture.js";
import { makeCertificates, startHost } from "./hosts.js";
import type { Host } from "./hosts.js";

let certificates: Awaited<ReturnType<typeof makeCertificates>>;
let from: Host;
let to: Host;
let scratch: string;

const services = (host: string): string =>
  `      folders: {driver: vfs, vfs: {root: ${join(scratch, host)}, quota: off}}\n`;

const dataOf = (host: string, id: string): string => join(scratch, host, "vol", id);

function command(host: Host, ...args: readonly string[]) {
  return runProgram(BIN, ["volume", ...args], {
    LIBSTORAGE_HOME: join(scratch, "home"),
    LIBSTORAGE_HOST: host.address,
    LIBSTORAGE_TLS_CERTFILE: certificates.tls.certFile,
    LIBSTORAGE_TLS_KEYFILE: certificates.tls.keyFile,
    LIBSTORAGE_TLS_TRUSTEDCERTSFILE: certificates.tls.trustedCertsFile,
  });
}

async function idAt(host: Host, name: string): Promise<string> {
  const all = await host.client.volumesByService({ service: "folders" }, undefined, {});
  const found = Object.values(all).find((volume) => volume.name === name);
  assert.ok(found !== undefined, `there is no ${name}`);
  return found.id;
}

describe("commands for content", () => {
  before(async () => {
    scratch = await mkdtemp(join(tmpdir(), "libstorage-content-commands-"));
    certificates = await makeCertificates();
    for (const host of ["from", "to"]) mkdirSync(join(scratch, host));
    from = await startHost(certificates, services("from"));
    to = await startHost(certificates, services("to"));
    const { id } = await from.client.volumeCreate({ service: "folders" }, { name: "web" }, {});
    writeFileSync(join(dataOf("from", id), "page"), "hello", { mode: 0o640 });
  });
  after(async () => {
    await from.close();
    await to.close();
    for (const folder of [scratch, certificates.folder]) await rm(folder, { recursive: true });
  });

  async function checkPage(name: string): Promise<void> {
    const page = join(dataOf("to", await idAt(to, name)), "page");
    assert.equal(readFileSync(page, "utf8"), "hello");
    assert.equal(statSync(page).mode & 0o777, 0o640);
  }

  it("copies a volume to another server", async () => {
    const { code, stderr } = await command(from, "copy", "web", "copied", "--to-host", to.address);
    assert.equal(code, 0, stderr);
    await checkPage("copied");
  });

  it("does not take a name twice", async () => {
    const args = ["copy", "web", "copied", "--to-host", to.address];
    const { code, stderr } = await command(from, ...args);
    assert.notEqual(code, 0);
    assert.match(stderr, /copied/);
  });

  it("needs a snapshot for increments, and another server", async () => {
    for (const more of [[], ["--to-host", to.address]]) {
      const { code, stderr } = await command(from, "copy", "web", "x", "--incremental", ...more);
      assert.equal(code, 2, stderr);
    }
  });

  it("downloads into a file, and uploads from it", async () => {
    const file = join(scratch, "web.tar");
    const down = await command(from, "download", "web", file);
    assert.equal(down.code, 0, down.stderr);
    const up = await command(to, "upload", file, "uploaded", "--format", "tar");
    assert.equal(up.code, 0, up.stderr);
    await checkPage("uploaded");
  });

  it("leaves nothing of a file that is no content", async () => {
    const file = join(scratch, "broken.tar");
    writeFileSync(
      file,
      "no archive, but long enough to be read as the beginning of one".repeat(20),
    );
    const { code } = await command(to, "upload", file, "broken", "--format", "tar");
    assert.notEqual(code, 0);
    await assert.rejects(idAt(to, "broken"));
  });
});
