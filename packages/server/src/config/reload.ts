/** What SIGHUP changes: the old configuration with every part of the new one that needs no restart. */
import { isDeepStrictEqual } from "node:util";
import type { ServerConfig, ServiceConfig } from "./server-config.js";

export interface Reload {
  /** What to run with from now on. */
  readonly config: ServerConfig;
  /** Parts that are different now. */
  readonly changed: readonly string[];
  /** Parts that differ in the file but wait for a restart. */
  readonly needRestart: readonly string[];
}

interface Part {
  readonly path: string;
  readonly of: (config: ServerConfig) => unknown;
}

const LIVE: readonly Part[] = [
  { path: "libstorage.server.auth", of: (config) => config.auth },
  { path: "libstorage.server.tasks", of: (config) => config.tasks },
  { path: "libstorage.server.parseRequestOpts", of: (config) => config.parseRequestOpts },
  {
    path: "libstorage.schema.responseValidationEnabled",
    of: (config) => config.responseValidation,
  },
  { path: "libstorage.logging", of: (config) => config.logging },
  { path: "libstorage.server.http", of: (config) => config.http },
];

const FIXED: readonly Part[] = [
  { path: "libstorage.server.insecure", of: (config) => config.insecure },
  { path: "libstorage.server.qmp", of: (config) => config.qmp },
  { path: "libstorage.server.hypervisor", of: (config) => config.hypervisor },
  { path: "libstorage.server.journal", of: (config) => config.journal },
];

/** Files and rules of TLS can change under living connections; whether there is TLS at all cannot. */
function mergeTls(old: ServerConfig, next: ServerConfig, note: Notes): ServerConfig["tls"] {
  if (isDeepStrictEqual(old.tls, next.tls)) return old.tls;
  if (old.tls === undefined || next.tls === undefined) {
    note.needRestart.push("libstorage.tls");
    return old.tls;
  }
  note.changed.push("libstorage.tls");
  return next.tls;
}

interface Notes {
  readonly changed: string[];
  readonly needRestart: string[];
}

function mergeServices(
  old: readonly ServiceConfig[],
  next: readonly ServiceConfig[],
  notes: Notes,
): readonly ServiceConfig[] {
  const path = (name: string): string => `libstorage.server.services.${name}`;
  for (const { name } of next)
    if (!old.some((service) => service.name === name)) notes.needRestart.push(path(name));
  return old.map((service) => {
    const to = next.find(({ name }) => name === service.name);
    if (to === undefined) {
      notes.needRestart.push(path(service.name));
      return service;
    }
    for (const key of ["driver", "options", "shareable", "uniqueNames"] as const)
      if (!isDeepStrictEqual(service[key], to[key]))
        notes.needRestart.push(`${path(service.name)}.${key === "options" ? service.driver : key}`);
    if (isDeepStrictEqual(service.auth, to.auth)) return service;
    notes.changed.push(`${path(service.name)}.auth`);
    const { auth: _auth, ...rest } = service;
    return to.auth === undefined ? rest : { ...rest, auth: to.auth };
  });
}

function mergeEndpoints(old: ServerConfig, next: ServerConfig, notes: Notes): void {
  const names = new Set([...old.endpoints, ...next.endpoints].map(({ name }) => name));
  for (const name of names) {
    const [before, after] = [old, next].map(({ endpoints }) =>
      // Whether TLS is on is told by its own key.
      endpoints
        .filter((one) => one.name === name)
        .map(({ address, socketMode }) => ({ address, socketMode })),
    );
    if (!isDeepStrictEqual(before, after))
      notes.needRestart.push(`libstorage.server.endpoints.${name}`);
  }
}

export function reloadConfig(old: ServerConfig, next: ServerConfig): Reload {
  const notes: Notes = { changed: [], needRestart: [] };
  for (const { path, of } of LIVE)
    if (!isDeepStrictEqual(of(old), of(next))) notes.changed.push(path);
  for (const { path, of } of FIXED)
    if (!isDeepStrictEqual(of(old), of(next))) notes.needRestart.push(path);
  mergeEndpoints(old, next, notes);
  const { auth: _auth, tls: _tls, ...kept } = old;
  const tls = mergeTls(old, next, notes);
  const config: ServerConfig = {
    ...kept,
    ...(next.auth !== undefined && { auth: next.auth }),
    ...(tls !== undefined && { tls }),
    services: mergeServices(old.services, next.services, notes),
    tasks: next.tasks,
    parseRequestOpts: next.parseRequestOpts,
    responseValidation: next.responseValidation,
    logging: next.logging,
    http: next.http,
    settings: next.settings,
  };
  return { config, ...notes };
}
