/** A host that uses volumes, for tests: its folders, its name, its settings. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { ConfigTree, ScopedConfig } from "@libstorage/model";
import type { VolumeService } from "@libstorage/model";
import { HostVolumes, loadSettings, readMountTable, runCommand } from "@libstorage/client/host";
import type { Exec, HostVolumesOptions } from "@libstorage/client/host";
import { makeFolder } from "./fixture.js";

const CAP_SYS_RESOURCE = 24n;

/** Why real mounts cannot be made here, or false. */
export function cannotMount(): string | false {
  if (process.geteuid?.() !== 0) return "only root can mount";
  const folder = spawnSync("mktemp", ["-d"], { encoding: "utf8" }).stdout.trim();
  const made = spawnSync("mount", ["--bind", folder, folder]);
  if (made.status === 0) spawnSync("umount", [folder]);
  spawnSync("rmdir", [folder]);
  return made.status === 0 ? false : "this host lets nobody mount";
}

/** Why a mounted file system of this type cannot be grown here, or false. @see capabilities(7) */
export function cannotGrow(fsType: string): string | false {
  const text = readFileSync("/proc/self/status", "utf8");
  const effective = BigInt(`0x${/^CapEff:\s*([\da-f]+)/m.exec(text)?.[1] ?? "0"}`);
  const isAllowed = ((effective >> CAP_SYS_RESOURCE) & 1n) === 1n;
  return fsType === "ext4" && !isAllowed
    ? "growing a mounted ext4 needs CAP_SYS_RESOURCE, which root does not have here; the lab grows one"
    : false;
}

export interface TestHost {
  readonly folder: string;
  readonly volumes: HostVolumes;
  /** The same host as another process would see it. */
  again(change?: Partial<HostVolumesOptions>): HostVolumes;
  /** Mount points below the host's folder. */
  mounts(): Promise<readonly string[]>;
  close(): Promise<void>;
}

export interface TestHostOptions {
  readonly name?: string;
  readonly settings?: Readonly<Record<string, unknown>>;
  readonly exec?: Exec;
  readonly isRoot?: boolean;
  readonly service?: string;
  /** A host that is there already. */
  readonly folder?: string;
}

export async function openHost(
  service: VolumeService,
  options: TestHostOptions = {},
): Promise<TestHost> {
  const folder = options.folder ?? (await makeFolder());
  const env = { LIBSTORAGE_HOME: folder, LIBSTORAGE_CONFIG: "" };
  const settings = await loadSettings({
    env,
    flags: options.settings as Record<string, string>,
  });
  const all: HostVolumesOptions = {
    service,
    name: options.service ?? "vfs",
    server: "test",
    executors: {
      config: new ScopedConfig([new ConfigTree({ vfs: { root: join(folder, "executor") } })]),
      libFolder: settings.folders.lib,
      hostName: options.name ?? "host-a",
      isRoot: options.isRoot ?? true,
      exec: options.exec ?? runCommand,
    },
    operations: settings.operations,
    attachTimeoutMs: 1000,
    scan: "quick",
    instanceIDCacheMs: 60_000,
  };
  const again = (change: Partial<HostVolumesOptions> = {}): HostVolumes =>
    new HostVolumes({ ...all, ...change });
  const mounts = async (): Promise<readonly string[]> =>
    (await readMountTable())
      .map(({ mountPoint }) => mountPoint)
      .filter((at) => at.startsWith(folder));
  return {
    folder,
    volumes: again(),
    again,
    mounts,
    async close() {
      for (const mountPoint of await mounts()) spawnSync("umount", [mountPoint]);
      await rm(folder, { recursive: true, force: true });
    },
  };
}
