/** The plugin's own keys, in its module or outside of all. */
import type { SettingReader } from "../../setting-reader.js";
import { wrong } from "../../settings.js";
import type { ServingTls } from "../plugin-server.js";

export interface DockerSettings {
  readonly limits: { readonly readMs: number; readonly changeMs: number };
  readonly serverWaitMs: number;
  readonly specFolder: string;
  /** Of a TCP address. */
  readonly tls?: ServingTls;
  /** What the daemon shows to a plugin on TCP. */
  readonly daemon?: { readonly certFile: string; readonly keyFile: string };
}

/** The daemon gives up looking after a minute, and changing after two. */
const READ_LIMIT_MS = 20_000;
const CHANGE_LIMIT_MS = 100_000;
const SERVER_WAIT_MS = 10_000;

/** @throws {StorageError} `invalid-argument` with every problem */
export function readDockerSettings(reader: SettingReader): DockerSettings {
  const text = (key: string): string | undefined => reader.text(`docker.${key}`);
  const [certFile, keyFile, trustedCertsFile] = [
    text("tls.certFile"),
    text("tls.keyFile"),
    text("tls.trustedCertsFile"),
  ];
  const [daemonCert, daemonKey] = [text("daemon.certFile"), text("daemon.keyFile")];
  const settings: DockerSettings = {
    limits: {
      readMs: reader.duration(READ_LIMIT_MS, "docker.readTimeout"),
      changeMs: reader.duration(CHANGE_LIMIT_MS, "docker.changeTimeout"),
    },
    serverWaitMs: reader.duration(SERVER_WAIT_MS, "docker.serverWait"),
    specFolder: text("specFolder") ?? "/etc/docker/plugins",
    ...(certFile !== undefined &&
      keyFile !== undefined &&
      trustedCertsFile !== undefined && { tls: { certFile, keyFile, trustedCertsFile } }),
    ...(daemonCert !== undefined &&
      daemonKey !== undefined && { daemon: { certFile: daemonCert, keyFile: daemonKey } }),
  };
  if (reader.problems.length > 0) throw wrong(reader.problems);
  return settings;
}
