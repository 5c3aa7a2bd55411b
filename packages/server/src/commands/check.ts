/** `libstorage-server check`: is the configuration right, and what can each driver do on this host? */
import { mkdir } from "node:fs/promises";
import { formatAddress } from "@libstorage/model";
import { loadConfig } from "../config.js";
import type { ConfigInput, ServerConfig, ServiceConfig } from "../config.js";
import type { ExporterConfig } from "../config/server-config.js";
import type { Ability, DriverContext } from "../core/driver.js";
import type { ExporterModule } from "../core/exporter.js";
import { openExec } from "../core/exec.js";
import { openFiles } from "../core/files.js";
import { SILENT } from "../core/log.js";
import { DRIVERS } from "../drivers/index.js";
import { EXPORTERS } from "../exporters/index.js";
import { certificateHealth, loadMaterial } from "../tls/material.js";
import { EXIT, isSet, tableOf, textOf } from "./command.js";
import type { Command, Input } from "./command.js";

/** The configuration as the arguments name it. */
export function configInput(input: Input): ConfigInput {
  const file = textOf(input, "config");
  return { flags: input.flags, ...(file !== undefined && { file }) };
}

interface ServiceReport {
  readonly service: string;
  readonly driver: string;
  readonly ok: boolean;
  readonly error?: string;
  readonly abilities: readonly Ability[];
}

const TIME_LIMIT_MS = 60_000;

async function checkService(service: ServiceConfig, config: ServerConfig): Promise<ServiceReport> {
  const { name, driver: driverName, options, exporter, exports } = service;
  const report = { service: name, driver: driverName };
  const context: DriverContext = {
    signal: AbortSignal.timeout(TIME_LIMIT_MS),
    exec: openExec({ log: SILENT }),
    files: openFiles(),
    log: SILENT,
    progress: () => {},
    service: name,
    libFolder: config.folders.lib,
  };
  const module = (DRIVERS as Readonly<Record<string, (typeof DRIVERS)["vfs"]>>)[driverName];
  try {
    if (module === undefined) throw new Error(`there is no driver named ${driverName}`);
    const driver = await module.open(options, context);
    try {
      const own = await driver.abilities(context);
      const exporting: Ability[] = [];
      for (const one of [...(exporter === undefined ? [] : [exporter]), ...exports])
        exporting.push(...(await exporterAbilities(one, context)));
      const unique = new Map([...own, ...exporting].map((one) => [one.name, one]));
      return { ...report, ok: true, abilities: [...unique.values()] };
    } finally {
      await driver.close();
    }
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { ...report, ok: false, error: message, abilities: [] };
  }
}

async function exporterAbilities(
  exporter: ExporterConfig,
  context: DriverContext,
): Promise<readonly Ability[]> {
  const module = (EXPORTERS as Readonly<Record<string, ExporterModule>>)[exporter.name];
  if (module === undefined) throw new Error(`there is no exporter named ${exporter.name}`);
  const opened = await module.open(exporter.options, context);
  try {
    return await opened.abilities(context);
  } finally {
    await opened.close();
  }
}

function checkTls({ tls, endpoints }: ServerConfig): {
  readonly certificates: ReturnType<typeof certificateHealth>;
  readonly problems: readonly string[];
} {
  if (tls === undefined || !endpoints.some(({ isTls }) => isTls))
    return { certificates: [], problems: [] };
  try {
    const material = loadMaterial(tls);
    const certificates = certificateHealth(material);
    const ended = certificates.filter(({ daysLeft }) => daysLeft < 0);
    return { certificates, problems: ended.map(({ file }) => `the certificate ${file} has ended`) };
  } catch (error) {
    return { certificates: [], problems: [error instanceof Error ? error.message : String(error)] };
  }
}

export function describeEndpoints(config: ServerConfig): readonly string[] {
  return config.endpoints.map(({ name, address, isTls }) => {
    const where = address.kind === "auto-unix" ? "a new socket" : formatAddress(address);
    return `${name}: ${where}${isTls ? " (TLS)" : ""}`;
  });
}

export async function checkHost(input: Input): Promise<number> {
  const config = loadConfig(DRIVERS, configInput(input), EXPORTERS);
  await mkdir(config.folders.lib, { recursive: true, mode: 0o700 });
  const services = await Promise.all(
    config.services.map((service) => checkService(service, config)),
  );
  const { certificates, problems } = checkTls(config);
  const isFine = problems.length === 0 && services.every(({ ok }) => ok);
  if (isSet(input, "json")) {
    const endpoints = describeEndpoints(config);
    const result = {
      ok: isFine,
      files: config.sources,
      endpoints,
      services,
      certificates,
      problems,
    };
    input.out(JSON.stringify(result, undefined, 2));
    return isFine ? EXIT.done : EXIT.failed;
  }
  input.out(`configuration  ${config.sources.join(", ") || "environment and flags"}`);
  for (const line of describeEndpoints(config)) input.out(`endpoint       ${line}`);
  for (const { file, notAfter, daysLeft } of certificates)
    input.out(
      `certificate    ${file}: ends ${notAfter.slice(0, 10)}, in ${Math.floor(daysLeft)} days`,
    );
  input.out("");
  input.out(
    tableOf([
      ["SERVICE", "DRIVER", "WHAT", "", "DETAIL"],
      ...services.flatMap(({ service, driver, ok, error, abilities }) => [
        [service, driver, "opens", ok ? "yes" : "NO", error ?? ""],
        ...abilities.map(({ name, available, detail }) => [
          "",
          "",
          name,
          available ? "yes" : "no",
          detail,
        ]),
      ]),
    ]),
  );
  for (const problem of problems) input.err(problem);
  if (!isFine) input.err("not everything is in order; see above");
  return isFine ? EXIT.done : EXIT.failed;
}

export const check: Command = {
  name: "check",
  summary:
    "Checks the configuration, opens every driver, and prints what it can do on this host. Opens no port.",
  options: {
    config: { type: "string", short: "c", value: "FILE", meaning: "The configuration file." },
    json: { type: "boolean", meaning: "Prints JSON." },
  },
  run: checkHost,
};
