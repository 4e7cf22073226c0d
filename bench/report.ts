/** The table of results, for a terminal and for bench/README.md. */
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import Table from 'cli-table3'
import { benchRoot, fileSystemOf, type Result } from './harness.ts'

/** Spec section 4: what each figure has to reach. */
const REACH: Readonly<Record<string, (result: Result) => string>> = {
  append: ({ against }) => (against === 'naive' ? 'ratio ≥ 16' : ''),
  'append-single': ({ against }) => (against.startsWith('naive') ? 'ratio ≥ 10' : ''),
  rebuild: ({ against }) => (against === 'naive' ? 'ratio ≥ 60' : ''),
  'bytes-per-event': ({ against }) => (against.includes('import') ? '≤ 6' : '≤ 12'),
  at: ({ against }) => (against.includes(' 1 M') ? '≤ 50 ms, ratio ≥ 0.67' : ''),
  open: ({ against }) => (against.includes(' 1 M') ? 'ratio ≥ 0.67' : ''),
  changed: () => '≤ 1000 ms',
  merge: ({ against }) => (against.startsWith('QEMU') ? 'ratio ≥ 2' : '≤ 100 ms'),
  memory: () => '≤ 16 MiB',
}

const HEAD = ['name', 'unit', 'slicelog', 'other', 'ratio', 'runs', 'against', 'to reach'] as const
const BEGIN = '<!-- bench:begin -->'
const END = '<!-- bench:end -->'

function row(result: Result): string[] {
  const { name, unit, ours, theirs, ratio, runs, against, reach } = result
  return [
    name,
    unit,
    figure(ours),
    figure(theirs),
    ratio === null ? '' : `${ratio}×`,
    String(runs),
    against,
    REACH[name]?.(result) ?? reach ?? '',
  ]
}

function figure(value: number | null): string {
  return value === null ? 'not measured' : String(value)
}

export function machineLine(): string {
  const processors = cpus()
  const memory = Math.round(totalmem() / 2 ** 30)
  return `${processors.length} × ${processors[0]?.model.trim() ?? 'unknown processor'}, ${memory} GiB, Node ${process.versions.node}, ${fileSystemOf(benchRoot())}`
}

export function plainTable(results: readonly Result[]): string {
  const table = new Table({ head: [...HEAD], style: { head: [], border: [] } })
  table.push(...results.map(row))
  return table.toString()
}

/** Replaces what stands between the markers. Throws when they are not there. */
export function writeReadme(path: string, results: readonly Result[], full: boolean): void {
  const text = readFileSync(path, 'utf8')
  const begin = text.indexOf(BEGIN)
  const end = text.indexOf(END)
  if (begin < 0 || end < begin) throw new Error(`${path} has no place for the table (${BEGIN} … ${END})`)
  const lines = [
    HEAD.join(' | '),
    HEAD.map(() => '---').join(' | '),
    ...results.map((result) => row(result).join(' | ')),
  ]
  const table = lines.map((line) => `| ${line} |`).join('\n')
  const command = `npm run bench -- --write${full ? ' --full' : ''}`
  const block = `${BEGIN}\n\`${command}\` on ${machineLine()}:\n\n${table}\n\n`
  writeFileSync(path, text.slice(0, begin) + block + text.slice(end))
}
