/** The machine as a host that uses volumes, by its own settings. */
import { hostname } from "node:os";
import { openClient } from "@libstorage/client";
import type { Client, ClientOptions } from "@libstorage/client";
import { HostVolumes, loadSettings, runCommand } from "@libstorage/client/host";
import type { HostVolumesOptions } from "@libstorage/client/host";

export interface OwnHostOptions extends Omit<ClientOptions, "host" | "tls"> {
  readonly service: string;
  readonly exec?: HostVolumesOptions["executors"]["exec"];
  readonly attachTimeoutMs?: number;
}

export async function openOwnHost({
  service,
  exec = runCommand,
  attachTimeoutMs,
  ...times
}: OwnHostOptions): Promise<{ readonly client: Client; readonly volumes: HostVolumes }> {
  const settings = await loadSettings({ env: process.env });
  const client = openClient({
    host: settings.host,
    ...(settings.tls !== undefined && { tls: settings.tls }),
    ...times,
  });
  const volumes = new HostVolumes({
    service: client,
    name: service,
    server: client.address,
    executors: {
      config: settings.config,
      libFolder: settings.folders.lib,
      hostName: hostname(),
      isRoot: true,
      exec,
    },
    operations: settings.operations,
    attachTimeoutMs: attachTimeoutMs ?? settings.attachTimeoutMs,
    scan: settings.scan,
    instanceIDCacheMs: settings.instanceIDCacheMs,
  });
  return { client, volumes };
}
