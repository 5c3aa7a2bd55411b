import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { mocks, startRest } from "./rest-server.js";
import type { RestServer } from "./rest-server.js";

interface Info {
  readonly md5checksum: string;
  readonly size: number;
  readonly lastModified: number;
}

describe("GET /executors", () => {
  let server: RestServer;
  let folder: string;
  const content = "#!/usr/bin/env node\n";

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "libstorage-executors-"));
    await writeFile(join(folder, "lsx-linux"), content);
    await utimes(join(folder, "lsx-linux"), 1_700_000_000, 1_700_000_000);
    await writeFile(join(folder, ".hidden"), "no");
    await symlink("/etc/passwd", join(folder, "lsx-link"));
    server = await startRest(mocks(), { executorsFolder: folder });
  });
  after(async () => {
    await server.close();
    await rm(folder, { recursive: true });
  });

  it("lists the files of its folder with their checksums, and no links", async () => {
    const list = (await server.ask("GET", "/executors")).json<Record<string, Info>>();
    assert.deepEqual(Object.keys(list), ["lsx-linux"]);
    const { md5checksum, size, lastModified } = list["lsx-linux"] as Info;
    assert.equal(md5checksum, createHash("md5").update(content).digest("hex"));
    assert.deepEqual([size, lastModified], [content.length, 1_700_000_000]);
  });
  it("serves one with the reference's headers, to GET and HEAD", async () => {
    const answer = await server.ask("GET", "/executors/lsx-linux");
    assert.equal(answer.text, content);
    const head = await server.ask("HEAD", "/executors/lsx-linux");
    assert.equal(head.text, "");
    for (const { headers } of [answer, head]) {
      assert.equal(headers["accept-ranges"], "bytes");
      assert.equal(headers["content-length"], String(content.length));
      assert.equal(headers["content-type"], "application/octet-stream");
      assert.equal(headers["last-modified"], "Tue, 14 Nov 2023 22:13:20 UTC");
      const md5 = createHash("md5").update(content).digest("base64");
      assert.equal(headers["content-md5"], md5);
    }
  });
  it("notices a new file", async () => {
    await writeFile(join(folder, "lsx-linux"), `${content}// newer\n`);
    const answer = await server.ask("GET", "/executors/lsx-linux");
    assert.match(answer.text, /newer/);
  });
  it("reaches nothing outside its folder", async () => {
    for (const name of ["..%2Fetc", "%2e%2e", ".hidden", "lsx-link", "nope"])
      assert.equal((await server.ask("GET", `/executors/${name}`)).status, 404, name);
  });
});
