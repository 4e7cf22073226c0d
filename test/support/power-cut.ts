/**
 * What may be found on a disk when the power went at a line of a recording. Durable is what was done before a sync of that file
 * (or folder, for its names) began that had ended by then; each model says what else is there:
 *
 *     synced   nothing else. Of names that were not synced: as many as chance has it, in their order
 *     all      everything that was begun
 *     some     of each 4 KiB page any state since its last sync, pages in any order; one in eight torn between 512 byte sectors
 *
 * Names of one folder become durable in their order, as journals of file systems keep it; those of different folders do not,
 * and no sync of a file helps the folder that it is in. A size may run ahead of the bytes: what is between reads as zeroes.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type FileNode, type FolderNode, type Node, type Op, sizeAfter } from './file-history.ts'

export type Kept = 'synced' | 'all' | 'some'

const PAGE = 4096
const SECTOR = 512
const TORN = 1 / 8

export type Found = Buffer | Map<string, Found>

/** `cut`: the last line that was. `random` decides whatever the model leaves open. */
export function foundAfter(node: Node, cut: number, kept: Kept, random: () => number): Found {
  return node.kind === 'file' ? contentAfter(node, cut, kept, random) : namesAfter(node, cut, kept, random)
}

/** As programs saw it when the line was written. */
export function contentAt(file: FileNode, line: number): Buffer {
  return contentAfter(file, line, 'all', () => 0)
}

/** When the last sync began that had ended by the cut: what was done before it a power cut cannot take back. */
function syncedBefore({ syncs }: Pick<FileNode | FolderNode, 'syncs'>, cut: number): number {
  return syncs.reduce((last, { began, done }) => (done <= cut ? Math.max(last, began) : last), -1)
}

function contentAfter(file: FileNode, cut: number, kept: Kept, random: () => number): Buffer {
  const ops = file.ops.filter(({ began }) => began <= cut)
  const synced = syncedBefore(file, cut)
  const isSafe = ({ done }: Op) => done < synced
  switch (kept) {
    case 'all':
      return applied(file.before, ops)
    case 'synced':
      return applied(file.before, ops.filter(isSafe))
    case 'some':
      return someOf(file.before, ops, isSafe, random)
    default: {
      const never: never = kept
      throw new Error(`unknown model ${String(never)}`)
    }
  }
}

function applied(before: Buffer, ops: readonly Op[]): Buffer {
  const content = Buffer.alloc(mostOf(before, ops))
  before.copy(content)
  let size = before.length
  for (const op of ops) {
    if (op.kind === 'write') op.data.copy(content, op.offset)
    else if (op.size < size) content.fill(0, op.size, size)
    size = sizeAfter(size, op)
  }
  return content.subarray(0, size)
}

function mostOf(before: Buffer, ops: readonly Op[]): number {
  return ops.reduce((most, op) => Math.max(most, sizeAfter(0, op)), before.length)
}

function someOf(
  before: Buffer,
  ops: readonly Op[],
  isSafe: (op: Op) => boolean,
  random: () => number,
): Buffer {
  const safe = ops.findLastIndex(isSafe) + 1
  const sized = ops.slice(0, safe + chosen(ops.length - safe + 1, random))
  // A size that shrinks goes with what was written before and after it; those are small files.
  if (ops.slice(safe).some(({ kind }) => kind === 'size')) return applied(before, sized)
  const content = Buffer.alloc(mostOf(before, ops))
  before.copy(content)
  const upTo = sectorLimits(ops, isSafe, random)
  let size = before.length
  ops.forEach((op, index) => {
    if (op.kind === 'size') {
      if (op.size < size) content.fill(0, op.size, size)
    } else if (isSafe(op)) op.data.copy(content, op.offset)
    else
      for (let at = op.offset; at < op.offset + op.data.length; ) {
        const sector = Math.floor(at / SECTOR)
        const end = Math.min((sector + 1) * SECTOR, op.offset + op.data.length)
        if (index < upTo.get(sector)!) op.data.copy(content, at, at - op.offset, end - op.offset)
        at = end
      }
    size = sizeAfter(size, op)
  })
  return content.subarray(0, sized.reduce(sizeAfter, before.length))
}

/** For each sector how many of the operations reached it: the same for a whole page, unless that was torn. */
function sectorLimits(
  ops: readonly Op[],
  isSafe: (op: Op) => boolean,
  random: () => number,
): Map<number, number> {
  /** The states that a page may be found in: with everything up to its last safe write, and after each later one. */
  const pages = new Map<number, number[]>()
  ops.forEach((op, index) => {
    if (op.kind !== 'write') return
    const safe = isSafe(op)
    for (let page = Math.floor(op.offset / PAGE); page * PAGE < op.offset + op.data.length; page++) {
      const states = pages.get(page)
      if (safe || states === undefined) pages.set(page, safe ? [index + 1] : [0, index + 1])
      else states.push(index + 1)
    }
  })
  const limits = new Map<number, number>()
  for (const [page, states] of pages) {
    const whole = chosen(states.length, random)
    const torn = random() < TORN
    for (let i = 0; i < PAGE / SECTOR; i++)
      limits.set((page * PAGE) / SECTOR + i, states[torn ? chosen(whole + 1, random) : whole]!)
  }
  return limits
}

function namesAfter(folder: FolderNode, cut: number, kept: Kept, random: () => number): Map<string, Found> {
  const ops = folder.ops.filter(({ began }) => began <= cut)
  const synced = syncedBefore(folder, cut)
  const durable = ops.findLastIndex(({ done }) => done < synced) + 1
  const there = new Map(folder.before)
  const count = kept === 'all' ? ops.length : durable + chosen(ops.length - durable + 1, random)
  for (const op of ops.slice(0, count)) {
    if (op.kind === 'put') there.set(op.name, op.node)
    else {
      there.delete(op.name)
      if (op.kind === 'move') there.set(op.to, op.node)
    }
  }
  return new Map([...there].map(([name, node]) => [name, foundAfter(node, cut, kept, random)]))
}

const chosen = (below: number, random: () => number): number => Math.floor(random() * below)

/** Puts what was found where a program can open it. */
export function lay(found: Found, path: string): void {
  if (found instanceof Map) {
    mkdirSync(path, { recursive: true })
    for (const [name, below] of found) lay(below, join(path, name))
  } else writeFileSync(path, found)
}

/**
 * Where what a recording tells of its end is not what lies there; null when all is the same. A write that the end of its
 * process cut short may have reached the file or not, so such a file is not compared.
 */
export function firstDifference(told: Node | undefined, there: Node | undefined): string | null {
  if (told?.kind === 'file' && there?.kind === 'file') {
    if (told.ops.some(({ done }) => done === Number.POSITIVE_INFINITY)) return null
    return contentAt(told, Number.POSITIVE_INFINITY).equals(there.before) ? null : '.'
  }
  if (told?.kind !== 'folder' || there?.kind !== 'folder') return '.'
  for (const name of new Set([...told.names.keys(), ...there.names.keys()])) {
    const below = firstDifference(told.names.get(name), there.names.get(name))
    if (below !== null) return `${name}/${below}`
  }
  return null
}
