<#
.SYNOPSIS
Tries runhcs on a Windows host: creates, starts, enters, signals and deletes containers, and says of
each step whether it did what it should. Run it as an administrator.

.PARAMETER Runhcs
The program.
.PARAMETER Layers
The folders of read-only layers, topmost first, as containerd or Docker unpacked them.
.PARAMETER Scratch
The folder of a writable layer on top of them, with its sandbox.vhdx. Nothing else may use it.
.PARAMETER HyperV
Try VM isolation, too.
.PARAMETER Linux
Make a disk for Linux containers, too. Boot files of a Linux guest have to be where docs/windows.md
says.
#>
param(
    [Parameter(Mandatory)] [string] $Runhcs,
    [Parameter(Mandatory)] [string[]] $Layers,
    [Parameter(Mandatory)] [string] $Scratch,
    [switch] $HyperV,
    [switch] $Linux
)
$ErrorActionPreference = 'Stop'
$root = "check-$PID"
$bundle = Join-Path ([IO.Path]::GetTempPath()) $root
$script:failed = 0

function Invoke-Runhcs {
    $output = & $Runhcs --root $root @args 2>&1 | Out-String
    [pscustomobject]@{ Code = $LASTEXITCODE; Text = $output.Trim() }
}

function Assert-Step([string] $what, [scriptblock] $step) {
    try {
        $problem = & $step
    } catch {
        $problem = "$_"
    }
    if ($problem) {
        $script:failed++
        Write-Host "FAILED  $what`n        $problem" -ForegroundColor Red
    } else {
        Write-Host "ok      $what" -ForegroundColor Green
    }
}

function Expect-Success($result) {
    if ($result.Code -ne 0) { "exit code $($result.Code): $($result.Text)" }
}

function Write-Bundle([string[]] $arguments, [bool] $vm) {
    $windows = @{ layerFolders = @($Layers) + $Scratch }
    if ($vm) { $windows.hyperv = @{} }
    $config = @{
        ociVersion = '1.2.0'
        process = @{ cwd = 'C:\'; args = $arguments; user = @{ username = 'ContainerUser' } }
        hostname = 'runhcs-check'
        windows = $windows
    }
    New-Item -ItemType Directory -Force $bundle | Out-Null
    [IO.File]::WriteAllText("$bundle\config.json", ($config | ConvertTo-Json -Depth 8))
}

function Test-Isolation([string] $kind, [bool] $vm) {
    Write-Bundle @('cmd', '/c', 'exit 7') $vm
    Assert-Step "${kind}: run passes the exit code on" {
        $result = Invoke-Runhcs run -b $bundle one
        if ($result.Code -ne 7) { "exit code $($result.Code): $($result.Text)" }
    }
    Write-Bundle @('ping', '-t', '127.0.0.1') $vm
    Assert-Step "${kind}: create" { Expect-Success (Invoke-Runhcs create -b $bundle two) }
    Assert-Step "${kind}: state is created" {
        $state = (Invoke-Runhcs state two).Text | ConvertFrom-Json
        if ($state.status -ne 'created') { "status $($state.status)" }
    }
    Assert-Step "${kind}: the id is taken" {
        if ((Invoke-Runhcs create -b $bundle two).Code -ne 1) { 'created twice' }
    }
    Assert-Step "${kind}: start" { Expect-Success (Invoke-Runhcs start two) }
    Assert-Step "${kind}: exec passes output and exit code on" {
        $result = Invoke-Runhcs exec two cmd /c 'echo hello& exit 3'
        if ($result.Code -ne 3 -or $result.Text -notmatch 'hello') {
            "exit code $($result.Code): $($result.Text)"
        }
    }
    Assert-Step "${kind}: ps" {
        $pids = (Invoke-Runhcs ps --format json two).Text | ConvertFrom-Json
        if (-not $pids) { 'no processes' }
    }
    Assert-Step "${kind}: delete refuses a running container" {
        if ((Invoke-Runhcs delete two).Code -ne 1) { 'deleted' }
    }
    if ($vm) {
        Assert-Step "${kind}: pause and resume" {
            Expect-Success (Invoke-Runhcs pause two)
            Expect-Success (Invoke-Runhcs resume two)
        }
    }
    Assert-Step "${kind}: kill" { Expect-Success (Invoke-Runhcs kill two KILL) }
    Assert-Step "${kind}: stops" {
        foreach ($attempt in 1..300) {
            $state = (Invoke-Runhcs state two).Text | ConvertFrom-Json
            if ($state.status -eq 'stopped') { return }
            Start-Sleep -Milliseconds 100
        }
        "status $($state.status)"
    }
    Assert-Step "${kind}: delete" { Expect-Success (Invoke-Runhcs delete two) }
}

function Test-Disk {
    $disk = Join-Path $bundle 'new.vhdx'
    New-Item -ItemType Directory -Force $bundle | Out-Null
    Assert-Step 'create-scratch' {
        Expect-Success (Invoke-Runhcs create-scratch --destpath $disk --sizeGB 1)
    }
    Assert-Step 'the disk is a VHDX file' {
        $start = [Text.Encoding]::ASCII.GetString([IO.File]::ReadAllBytes($disk), 0, 8)
        if ($start -ne 'vhdxfile') { "it begins with $start" }
    }
    Assert-Step 'create-scratch overwrites nothing' {
        if ((Invoke-Runhcs create-scratch --destpath $disk).Code -ne 1) { 'overwritten' }
    }
    Assert-Step 'prepare-disk' { Expect-Success (Invoke-Runhcs prepare-disk --destpath $disk) }
}

try {
    Test-Isolation 'process' $false
    if ($HyperV) { Test-Isolation 'VM' $true }
    if ($Linux) { Test-Disk }
    Assert-Step 'nothing is left in the registry' {
        $left = Get-ChildItem "HKLM:\SOFTWARE\Microsoft\runhcs\$root" -ErrorAction SilentlyContinue
        if ($left | Where-Object { $_.PSChildName -notlike '~*' }) { "$left" }
    }
    Assert-Step 'no process is left' {
        $left = Get-CimInstance Win32_Process | Where-Object { $_.CommandLine -match $root }
        if ($left) { "$($left.CommandLine)" }
    }
} finally {
    foreach ($id in 'one', 'two') { Invoke-Runhcs delete --force $id | Out-Null }
    Remove-Item -Recurse -Force $bundle -ErrorAction SilentlyContinue
    Remove-Item -Recurse "HKLM:\SOFTWARE\Microsoft\runhcs\$root" -ErrorAction SilentlyContinue
}
if ($script:failed) {
    Write-Host "$($script:failed) steps failed" -ForegroundColor Red
    exit 1
}
Write-Host 'all steps did what they should' -ForegroundColor Green
