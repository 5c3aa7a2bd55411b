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
  /** What the daemon shows to a plugin on TCP, and whom it trusts; absent when it shows nothing. */
  readonly daemon?: {
    readonly certFile: string;
    readonly keyFile: string;
    readonly caFile: string;
  };
}

/** The daemon gives up looking after a minute, and changing after two. */
const READ_LIMIT_MS = 20_000;
const CHANGE_LIMIT_MS = 100_000;
const SERVER_WAIT_MS = 10_000;

/** @throws {StorageError} `invalid-argument` with every problem */
export function readDockerSettings(reader: SettingReader): DockerSettings {
  const text = (key: string): string | undefined => reader.text(`docker.${key}`);
  const settings: DockerSettings = {
    limits: {
      readMs: reader.duration(READ_LIMIT_MS, "docker.readTimeout"),
      changeMs: reader.duration(CHANGE_LIMIT_MS, "docker.changeTimeout"),
    },
    serverWaitMs: reader.duration(SERVER_WAIT_MS, "docker.serverWait"),
    specFolder: text("specFolder") ?? "/etc/docker/plugins",
    ...readTls(reader),
  };
  if (reader.problems.length > 0) throw wrong(reader.problems);
  return settings;
}

function readTls(reader: SettingReader): Pick<DockerSettings, "tls" | "daemon"> {
  const text = (key: string): string | undefined => reader.text(`docker.${key}`);
  const [certFile, keyFile] = [text("tls.certFile"), text("tls.keyFile")];
  if (certFile === undefined || keyFile === undefined) return {};
  const trustedCertsFile = text("tls.trustedCertsFile");
  const isOpen = !reader.flag(true, "docker.tls.clientCertRequired");
  // Closed, unless it is said in so many words that it shall be open.
  if (isOpen) return { tls: { certFile, keyFile } };
  if (trustedCertsFile === undefined) {
    reader.problems.push({
      path: "docker.tls.trustedCertsFile",
      message: "is missing: the CA whose certificate the daemon must show",
    });
    return {};
  }
  const tls = { certFile, keyFile, trustedCertsFile };
  const [cert, key] = [text("daemon.certFile"), text("daemon.keyFile")];
  if (cert === undefined || key === undefined) {
    reader.problems.push({
      path: "docker.daemon.certFile",
      message: "and keyFile are missing: the certificate that the daemon shows",
    });
    return {};
  }
  return { tls, daemon: { certFile: cert, keyFile: key, caFile: trustedCertsFile } };
}
