/** The README's examples for containers, as they stand there. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { cannotContain, ContainerHost } from "./container-host.js";

const CHECKOUT = new URL("../../../../", import.meta.url);
const PROGRAMS = ["dockerd", "docker", "runc", "nsenter", "ip"];

/** The blocks that follow a mark, in order. */
async function blocks(mark: string): Promise<readonly string[]> {
  const readme = await readFile(fileURLToPath(new URL("README.md", CHECKOUT)), "utf8");
  const found = readme
    .split(new RegExp(`<!-- ${mark}: a test runs .* -->`))
    .slice(1)
    .map((part) => /^\s*```\w+\n([\s\S]*?)```/.exec(part)?.[1] ?? assert.fail(`no block: ${mark}`));
  assert.ok(found.length > 0, `nothing is marked ${mark}`);
  return found;
}

describe(
  "the README's examples for containers",
  { skip: cannotContain("runc", "nsenter", "ip") },
  () => {
    let host: ContainerHost;

    before(async () => {
      host = await ContainerHost.start();
      await host.localServer();
      const [config = ""] = await blocks("plugin");
      host.configure(
        config.replace("unix:///run/libstorage/libstorage.sock", host.localServerAddress),
      );
      await host.plugin();
    });
    after(() => host?.close());

    const lines = (text: string): readonly string[] =>
      text.split("\n").filter((line) => line !== "");

    it("Docker Compose", { skip: cannotContain(...PROGRAMS, "docker-compose") }, async () => {
      await host.dockerd();
      await host.mustDocker("import", host.imageFile(), "busybox");
      const [file = "", commands = ""] = await blocks("compose");
      const folder = join(host.folder, "compose");
      mkdirSync(folder);
      writeFileSync(join(folder, "compose.yml"), file);
      const said: string[] = [];
      for (const line of lines(commands)) {
        // Debian has the program of its own, not Docker's plugin.
        const command = line.replace("docker compose", "docker-compose --no-ansi");
        const script = `cd ${folder} && ${command}`;
        said.push(
          await host.must(["sh", "-c", script], { env: { DOCKER_HOST: host.dockerAddress } }),
        );
      }
      assert.match(said[0] ?? "", /reader_1\s*\| hello/);
      assert.doesNotMatch(await host.mustDocker("volume", "ls"), /web1/);
      assert.deepEqual(host.mounts(), []);
    });

    it("Podman", { skip: cannotContain("podman") }, async () => {
      const [file = "", commands = ""] = await blocks("podman");
      writeFileSync(
        join(host.folder, "containers.conf"),
        `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
${file}`,
      );
      writeFileSync(
        join(host.folder, "storage.conf"),
        `[storage]
driver = "overlay"
graphroot = "${host.folder}/podman"
runroot = "${host.folder}/podrun"
`,
      );
      const env = {
        CONTAINERS_CONF: join(host.folder, "containers.conf"),
        CONTAINERS_STORAGE_CONF: join(host.folder, "storage.conf"),
      };
      await host.must(["podman", "import", host.imageFile(), "docker.io/library/busybox"], { env });
      const said: string[] = [];
      for (const line of lines(commands)) said.push(await host.must(["sh", "-c", line], { env }));
      assert.equal(said[2], "hello");
      assert.deepEqual(host.mounts(), []);
    });
  },
);

describe("the unit of the plugin", () => {
  const file = fileURLToPath(new URL("docs/systemd/libstorage-plugin-docker.service", CHECKOUT));

  it("is started before Docker, and waits for nothing that waits for it", async () => {
    const unit = await readFile(file, "utf8");
    assert.match(unit, /^Before=docker\.service/m);
    assert.match(unit, /^Type=notify$/m);
    assert.doesNotMatch(unit, /^(?:After|Requires|Wants|BindsTo)=.*docker\.service/m);
    assert.doesNotMatch(
      unit,
      /^(?:PrivateMounts|ProtectSystem|ProtectHome|PrivateTmp|PrivateDevices)=/m,
    );
  });

  it("is understood by systemd", (context) => {
    const checked = spawnSync("systemd-analyze", ["verify", file], { encoding: "utf8" });
    if (checked.error !== undefined) return context.skip("systemd-analyze is not installed");
    const own = checked.stderr.split("\n").filter((line) => line.includes("libstorage-plugin"));
    // The program is not installed where tests run.
    const wrong = own.filter((line) => !/is not executable|No such file/.test(line));
    assert.deepEqual(wrong, []);
  });
});
