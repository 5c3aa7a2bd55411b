/** What is in `deploy/`: it parses, and it says of the plugin what the plugin says of itself. */
import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { parse, parseAllDocuments } from "yaml";
import { DRIVER_NAME } from "@libstorage/client/csi";
import { BIN, run, startServer } from "../../client/fixture.js";
import type { TestServer } from "../../client/fixture.js";
import { openTestPlugin } from "./csi-client.js";
import type { Message } from "./csi-client.js";

const ROOT = fileURLToPath(new URL("../../../../", import.meta.url));
const DEPLOY = join(ROOT, "deploy");
const read = (name: string): string => readFileSync(join(DEPLOY, name), "utf8");
const documentsOf = (name: string): Message[] =>
  parseAllDocuments(read(`kubernetes/${name}`)).map((document) => {
    assert.deepEqual(document.errors, [], name);
    return document.toJS({ maxAliasCount: 100 }) as Message;
  });

const kustomization = parse(read("kubernetes/kustomization.yaml")) as {
  readonly resources: readonly string[];
  readonly images: readonly Message[];
};
const objects = kustomization.resources.flatMap(documentsOf);

function object(kind: string, name?: string): Message {
  const found = objects.filter(
    (one) => one.kind === kind && (name === undefined || one.metadata.name === name),
  );
  assert.equal(found.length, 1, `${kind} ${name}`);
  return found[0];
}

function podOf(kind: string): Message {
  return object(kind).spec.template.spec;
}

function container(kind: string, name: string): Message {
  const found = podOf(kind).containers.find((one: Message) => one.name === name);
  assert.ok(found !== undefined, `${kind} has ${name}`);
  return found;
}

/** Where the plugin of a pod listens, within the pod. */
function socketOf(kind: string): string {
  const { args } = container(kind, "plugin");
  const endpoint = args.find((arg: string) => arg.startsWith("--endpoint=")) ?? "";
  return /^--endpoint=unix:\/\/(\/.+)$/.exec(endpoint)?.[1] ?? assert.fail(endpoint);
}

/** What a plugin started with these words would say. */
async function optionsOf(args: readonly string[]): Promise<void> {
  assert.deepEqual(args.slice(0, 2), ["plugin", "csi"]);
  const { stdout } = await run(BIN, ["plugin", "csi", "--help"]);
  for (const arg of args.slice(2)) {
    const [, option = "", value = ""] = /^(--[\w-]+)=(.+)$/.exec(arg) ?? assert.fail(arg);
    const line = stdout.split("\n").find((one) => one.includes(`${option} `));
    assert.ok(line !== undefined, `${option} is an option`);
    if (option === "--mode") assert.ok(line.includes(value), `${value} is a mode`);
  }
}

describe("deploy/", () => {
  let server: TestServer;
  let all: Set<string>;
  let info: Message;
  let expansion: boolean;

  before(async () => {
    server = await startServer();
    const folder = join(server.folder, "host");
    const plugin = await openTestPlugin({ host: server.host, folder, service: "vfs" });
    info = await plugin.call("GetPluginInfo");
    const { capabilities } = await plugin.call("GetPluginCapabilities");
    expansion = capabilities.some((one: Message) => one.volumeExpansion !== undefined);
    const [controller, node] = [
      await plugin.call("ControllerGetCapabilities"),
      await plugin.call("NodeGetCapabilities"),
    ];
    const types = (reply: Message, prefix: string): string[] =>
      reply.capabilities.map((one: Message) => `${prefix}.${one.rpc.type}`);
    all = new Set([...types(controller, "controller"), ...types(node, "node")]);
    await plugin.stop();
  });
  after(() => server.close());

  it("every file of the folder is named, and every object has a kind and a name", () => {
    const files = readdirSync(join(DEPLOY, "kubernetes")).filter(
      (name) => name !== "kustomization.yaml" && name !== "group-snapshots",
    );
    assert.deepEqual([...kustomization.resources].toSorted(), files.toSorted());
    for (const one of objects) {
      assert.match(one.apiVersion, /^(?:[a-z0-9.]+\/)?v\d/);
      assert.ok(one.kind !== undefined && one.metadata.name !== undefined);
    }
  });

  it("the driver's name is the plugin's, everywhere", () => {
    assert.equal(info["name"], DRIVER_NAME);
    assert.equal(object("CSIDriver").metadata.name, DRIVER_NAME);
    assert.equal(object("StorageClass").provisioner, DRIVER_NAME);
    assert.equal(object("VolumeSnapshotClass").driver, DRIVER_NAME);
    const config = parse(object("ConfigMap").data["config.yml"]) as Message;
    assert.equal(config.csi.driverName, DRIVER_NAME);
    const registrar = container("DaemonSet", "registrar").args.join(" ");
    assert.ok(registrar.includes(`/var/lib/kubelet/plugins/${DRIVER_NAME}/csi.sock`));
  });

  it("CSIDriver says what the plugin advertises", () => {
    const { spec } = object("CSIDriver");
    assert.equal(spec.attachRequired, all.has("controller.PUBLISH_UNPUBLISH_VOLUME"));
    assert.equal(spec.fsGroupPolicy, all.has("node.VOLUME_MOUNT_GROUP") ? "File" : "None");
    assert.ok(spec.storageCapacity === false || all.has("controller.GET_CAPACITY"));
    assert.equal(object("StorageClass").allowVolumeExpansion, expansion);
  });

  it("there is a sidecar for what the controller can do, and none for what it cannot", () => {
    const names = podOf("Deployment").containers.map((one: Message) => one.name as string);
    const wanted = [
      ["provisioner", "controller.CREATE_DELETE_VOLUME"],
      ["attacher", "controller.PUBLISH_UNPUBLISH_VOLUME"],
      ["resizer", "controller.EXPAND_VOLUME"],
      ["snapshotter", "controller.CREATE_DELETE_SNAPSHOT"],
    ] as const;
    for (const [name, ability] of wanted)
      assert.equal(names.includes(name), all.has(ability), name);
    assert.deepEqual(
      names.filter((name: string) => !wanted.some(([one]) => one === name)),
      ["plugin", "liveness-probe"],
    );
  });

  it("all containers of a pod have one socket, where the plugin makes it", async () => {
    for (const [kind, mode] of [
      ["Deployment", "controller"],
      ["DaemonSet", "node"],
    ] as const) {
      const { args } = container(kind, "plugin");
      await optionsOf(args);
      assert.ok(args.includes(`--mode=${mode}`));
      const socket = socketOf(kind);
      assert.ok(socket.startsWith("/csi/"), socket);
      for (const one of podOf(kind).containers) {
        assert.ok(
          one.volumeMounts.some(({ mountPath }: Message) => mountPath === "/csi"),
          `${one.name} sees /csi`,
        );
        if (one.name !== "plugin") assert.ok(one.args.includes(`--csi-address=${socket}`));
      }
    }
  });

  it("the plugin takes the place of its socket as the kubelet makes it", async () => {
    for (const kind of ["Deployment", "DaemonSet"]) {
      const { name } = container(kind, "plugin").volumeMounts.find(
        ({ mountPath }: Message) => mountPath === "/csi",
      );
      const volume = podOf(kind).volumes.find((one: Message) => one.name === name);
      const folder = join(server.folder, `csi-of-${kind}`);
      // An emptyDir is for everybody; a folder of the host that is not there yet is root's.
      mkdirSync(folder);
      chmodSync(folder, volume.emptyDir === undefined ? 0o755 : 0o777);
      const socket = socketOf(kind).replace(/^\/csi\//, "");
      const options = { host: server.host, folder, service: "vfs", socket };
      const plugin = await openTestPlugin(options);
      try {
        assert.equal(statSync(join(plugin.socket, "..")).mode & 0o022, 0);
        assert.equal(statSync(plugin.socket).mode & 0o777, 0o600);
        await plugin.call("GetPluginInfo");
      } finally {
        await plugin.stop(0);
      }
      if (volume.emptyDir !== undefined)
        await assert.rejects(
          openTestPlugin({ ...options, socket: "csi.sock" }),
          /others may write in its folder/,
        );
    }
  });

  it("a controller that has not reached its server yet is not started again and again", () => {
    const { startupProbe, livenessProbe } = container("Deployment", "plugin");
    assert.ok(startupProbe.periodSeconds * startupProbe.failureThreshold >= 3600);
    assert.deepEqual(startupProbe.httpGet, livenessProbe.httpGet);
    assert.equal(
      container("DaemonSet", "plugin").startupProbe,
      undefined,
      "a node is ready at once",
    );
  });

  it("the component for group snapshots gives its gate to the snapshotter, and the class is the driver's", () => {
    const component = parse(read("kubernetes/group-snapshots/kustomization.yaml")) as Message;
    assert.equal(component.kind, "Component");
    const [{ target, patch }] = component.patches;
    assert.equal(object(target.kind).metadata.name, target.name);
    const deployment = structuredClone(object(target.kind));
    for (const { op, path, value } of parse(patch)) {
      const keys = (path as string).split("/").slice(1);
      const last = keys.pop() ?? "";
      const parent = keys.reduce((at, key) => at[key], deployment);
      if (op === "test") assert.equal(parent[last], value, path);
      else {
        assert.deepEqual([op, last], ["add", "-"]);
        parent.push(value);
      }
    }
    const gate = "--feature-gates=CSIVolumeGroupSnapshot=true";
    const withGate = deployment.spec.template.spec.containers.filter((one: Message) =>
      one.args.includes(gate),
    );
    assert.deepEqual(
      withGate.map(({ name }: Message) => name),
      ["snapshotter"],
    );
    assert.deepEqual(component.resources, ["volumegroupsnapshotclass.yaml"]);
    const [group] = documentsOf("group-snapshots/volumegroupsnapshotclass.yaml");
    assert.equal(group.kind, "VolumeGroupSnapshotClass");
    assert.equal(group.driver, DRIVER_NAME);
  });

  it("what is mounted exists, and every image is in the kustomization", () => {
    const images = new Set(kustomization.images.map((one) => one.name as string));
    for (const kind of ["Deployment", "DaemonSet"]) {
      const { containers, volumes, serviceAccountName } = podOf(kind);
      object("ServiceAccount", serviceAccountName);
      const names = new Set(volumes.map((one: Message) => one.name));
      for (const one of containers) {
        assert.ok(images.has(one.image), one.image);
        for (const mount of one.volumeMounts) assert.ok(names.has(mount.name), mount.name);
      }
    }
  });

  it("the node's mounts reach the host, and its state outlives the pod", () => {
    const { volumeMounts, securityContext } = container("DaemonSet", "plugin");
    assert.equal(securityContext.privileged, true);
    const at = (path: string): Message =>
      volumeMounts.find(({ mountPath }: Message) => mountPath === path);
    assert.equal(at("/var/lib/kubelet").mountPropagation, "Bidirectional");
    const { name } = at("/var/lib/libstorage");
    const state = podOf("DaemonSet").volumes.find((one: Message) => one.name === name);
    assert.equal(state.hostPath.path, "/var/lib/libstorage");
    assert.equal(podOf("DaemonSet").hostNetwork, true);
  });

  it("the sidecars may do what they do", () => {
    const { rules } = object("ClusterRole");
    const may = (resource: string, verb: string): boolean =>
      rules.some((one: Message) => one.resources.includes(resource) && one.verbs.includes(verb));
    for (const [resource, verb] of [
      ["persistentvolumes", "create"],
      ["persistentvolumes", "patch"],
      ["volumeattachments/status", "patch"],
      ["persistentvolumeclaims/status", "patch"],
      ["volumesnapshotcontents/status", "patch"],
      ["csinodes", "list"],
    ] as const)
      assert.ok(may(resource, verb), `${verb} ${resource}`);
    assert.ok(!rules.some((one: Message) => one.resources.includes("secrets")), "no secrets");
  });

  for (const [file, mode] of [
    ["libstorage-csi-controller.nomad.hcl", "controller"],
    ["libstorage-csi-node.nomad.hcl", "node"],
  ] as const)
    it(`nomad/${file} starts the plugin as ${mode}`, async () => {
      const text = read(`nomad/${file}`).replaceAll(/^\s*#.*$/gm, "");
      for (const [open, close] of [
        ["{", "}"],
        ["[", "]"],
      ] as const)
        assert.equal(text.split(open).length, text.split(close).length, `${open} and ${close}`);
      const args = /\bargs\s*=\s*(\[[^\]]*\])/.exec(text)?.[1] ?? assert.fail("no args");
      const words = JSON.parse(args) as string[];
      await optionsOf(words);
      assert.ok(words.includes(`--mode=${mode}`));
      const block = /csi_plugin \{([^}]*)\}/.exec(text)?.[1] ?? assert.fail("no csi_plugin");
      const value = (key: string): string | undefined =>
        new RegExp(String.raw`\b${key}\s*=\s*"([^"]*)"`).exec(block)?.[1];
      assert.equal(value("type"), mode);
      assert.equal(value("id"), /plugin_id\s*=\s*"(\w+)"/.exec(read("nomad/volume.hcl"))?.[1]);
      assert.ok(text.includes(`CSI_ENDPOINT = "unix://${value("mount_dir")}/csi.sock"`));
      assert.equal(text.includes("privileged   = true"), mode === "node");
    });
});

describe("deploy/Dockerfile", () => {
  /** Continued lines are one; what `&&` joins are several. */
  const commands = read("Dockerfile")
    .replaceAll(/\\\n/g, " ")
    .split("\n")
    .filter((line) => line.startsWith("RUN "))
    .flatMap((line) => line.slice("RUN ".length).split("&&"))
    .map((command) => command.trim().split(/\s+/));

  it("runs scripts and packs packages of this checkout", () => {
    const npm = commands.filter(([name]) => name === "npm").map(([, ...words]) => words);
    const { scripts } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
    const uses = npm.map(([verb, name = ""]) => (verb === "run" ? `run ${name}` : verb));
    assert.deepEqual(uses, ["run build", "pack", "install"]);
    for (const [verb, name = ""] of npm) if (verb === "run") assert.ok(name in scripts, name);
    const [, pack = []] = npm;
    const packed = pack.filter((_, at) => pack[at - 1] === "-w");
    assert.deepEqual(packed, ["packages/model", "packages/client"]);
    for (const folder of packed) {
      const { files } = JSON.parse(readFileSync(join(ROOT, folder, "package.json"), "utf8"));
      for (const file of files) assert.ok(existsSync(join(ROOT, folder, file)), file);
    }
  });

  it("installs by the build, since npm ci refuses a lock file without the packages of other platforms", () => {
    const words = commands.map((command) => command.join(" "));
    assert.ok(!words.some((one) => /\bnpm (?:ci|clean-install)\b/.test(one)), words.join("\n"));
    const build = readFileSync(join(ROOT, "scripts/build.mjs"), "utf8");
    assert.match(build, /^install\(\);$/m);
    const [first = ""] = read("Dockerfile")
      .split(/^FROM /m)
      .slice(1);
    assert.match(first, /^ENV npm_config_ignore_scripts=true$/m, "no package runs a script");
  });

  it("copies no keys, no history and nothing that is built", () => {
    const ignored = readFileSync(join(ROOT, ".dockerignore"), "utf8").split("\n");
    for (const one of [".git", ".tls", "**/node_modules", "**/dist", "**/*.tsbuildinfo"])
      assert.ok(ignored.includes(one), one);
  });
});
