/**
 * Records traces of a real QEMU: `npx tsx test/golden/record.ts FOLDER [STEPS] PROFILE:SEED…`. Needs a
 * qemu-storage-daemon. A recorded trace is never edited; a new seed gives a new file.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TraceStep, traceText } from './format.ts'
import { Generator, PROFILES, type Profile } from './generate.ts'
import { Oracle } from './oracle.ts'

async function record(folder: string, profile: Profile, seed: number, count: number): Promise<string> {
  const generator = new Generator(profile, seed)
  const oracle = await Oracle.start(generator.disk, generator.withStreams)
  try {
    const steps: TraceStep[] = []
    let last: TraceStep['expect'] = { error: null }
    for (let i = 0; i <= count; i++) {
      const step = i === count ? ({ op: 'end' } as const) : generator.next(last)
      last = await oracle.step(step)
      steps.push({ ...step, expect: last })
    }
    const head = {
      format: 'qemu-golden/1',
      qemu: await oracle.daemon.version(),
      profile,
      seed,
      disk: generator.disk,
    } as const
    const file = join(folder, `${profile}-${seed}.json`)
    writeFileSync(file, traceText(head, steps))
    return file
  } finally {
    await oracle.stop()
  }
}

async function main([folder, ...rest]: readonly string[]): Promise<void> {
  const count = /^\d+$/.test(rest[0] ?? '') ? Number(rest[0]) : 60
  const wanted = rest.filter((word) => word.includes(':')).map((word) => word.split(':') as [Profile, string])
  if (
    folder === undefined ||
    wanted.length === 0 ||
    wanted.some(([profile]) => !PROFILES.includes(profile))
  ) {
    process.stderr.write(`usage: record.ts FOLDER [STEPS] PROFILE:SEED…   profiles: ${PROFILES.join(', ')}\n`)
    process.exitCode = 2
    return
  }
  mkdirSync(folder, { recursive: true })
  for (const [profile, seed] of wanted)
    process.stdout.write(`${await record(folder, profile, Number(seed), count)}\n`)
}

await main(process.argv.slice(2))
